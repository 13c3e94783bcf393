"""The configuration of a retraining: everything that defines it except the spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from exporter.retraining.teacher import TeacherConfig
from foundation.document import ConfigError
from searcher.running.device import Precision
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.task_kinds import check_steps, training_type
from searcher.training.text_learner import TextTraining


@dataclass(frozen=True)
class RetrainConfig:
    """Everything that defines a retraining except the spec; `retrain/config.toml` contains all of it."""

    preset: str
    """The preset it was made from."""
    num_epochs: int
    """Each is one pass over train, or several, see `min_steps`; one if the user sets the number, see `for_epochs`."""
    batch_size: int
    """Images, or parallel streams of text, in a step, divided among the processes."""
    sgd: SgdConfig
    training: Any
    """How the task is learnt: `ImageTraining` or `TextTraining`."""
    teacher: TeacherConfig = TeacherConfig()  # noqa: RUF009 - frozen, so one serves all
    """For images: models whose outputs are learnt besides the labels."""
    seed: int = 0
    """Fixes the run: on a CPU to the bit, for the same machine, versions and threads."""
    model: Literal["spec", "lstm"] = "spec"
    """The spec's network, or, for text, torch's LSTM with about as many parameters, to compare with."""
    spec_sha256: str = ""
    """Digest of the spec that is trained, including its provenance."""
    dataset_sha256: str = ""
    """The store's digest, so that a run does not resume with other data."""
    memory_budget_mb: int = 2048
    """For training and validation images; what does not fit streams from the store."""
    min_steps: int = 0
    """Least number of steps in all epochs together; if train is too small for that, an epoch is up to 8 passes."""
    average_share: float = 0.0
    """Share of the steps done, in [0, 1], that a moving average of the weights spans, see `averaging.horizon`; 0: no
    average. After each epoch, the better on valid of the weights and their average is the one that may be kept."""
    average_patience: int = 0
    """Averaged SGD: once valid has not improved for that many epochs, the mean of the weights of all further steps is
    validated beside the weights; 0: never. Source: Merity et al. 2018 (NT-ASGD), as enas_lm uses it, with 10."""
    train_on: Literal["train", "train+valid"] = "train"
    """train chooses the epoch on valid, see `learner.is_no_worse`; train+valid has no split to choose on and keeps
    the last epoch."""
    precision: Precision = "auto"
    """auto: see `device.products_precision`."""
    threads: int = 0
    """CPU threads; 0: as many as speed it up and as other processes leave free, see `threads`."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "memory_budget_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not 0 <= self.average_share <= 1:
            raise ConfigError(f"average_share is {self.average_share}; expected 0 to 1")
        for name in ("seed", "average_patience", "min_steps", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if isinstance(self.training, TextTraining) and self.training.batch_norm:
            raise ConfigError("batch_norm is for the search alone; here it must be false")
        if isinstance(self.training, TextTraining) and self.teacher.models:
            raise ConfigError("a teacher is for images; language models learn without one")
        check_steps(self.sgd, self.training, batch_size=self.batch_size)
        if self.average_patience and (self.average_share or self.train_on != "train"):
            raise ConfigError("average_patience needs a valid split to watch, and no average_share beside it")

    def for_epochs(self, epochs: int | None, *, is_min_steps_own: bool) -> RetrainConfig:
        """The configuration with the user's number of epochs, each one pass over train; unchanged if it is None.

        is_min_steps_own: the user has also set `min_steps`, which is kept.
        """
        if epochs is None:
            return self
        return replace(self, num_epochs=epochs, min_steps=self.min_steps if is_min_steps_own else 0)


def config_types(space: str) -> dict[str, type[Any]]:
    """The classes of those fields of a RetrainConfig that depend on the space; needed to read one."""
    return {"training": training_type(space)}
