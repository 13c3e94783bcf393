"""The complete configuration of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.document import ConfigError, unknown
from searcher.arch.space import SPACES, space_module
from searcher.controller.policy import PolicyConfig, check_policy
from searcher.controller.reinforce import ReinforceConfig
from searcher.latency.target import LatencyTarget
from searcher.running.device import Precision
from searcher.training.derive import DeriveConfig
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.task_kinds import check_steps, check_training, training_type


@dataclass(frozen=True)
class SearchConfig:
    """The complete configuration of a search, stored in `search/config.toml`."""

    space: str
    """The name of a module in `searcher/arch/spaces/`."""
    preset: str
    """The preset it was made from."""
    dataset: str
    """A data set's name, or the path of a store."""
    seed: int
    """Makes the run reproducible: on a CPU to the bit, with the same machine, versions and threads."""
    num_epochs: int
    """In each, the shared weights pass over train once, or more often, see `min_steps`; then `policy_steps` follow."""
    batch_size: int
    """Images, or parallel streams of text, in a step of the shared weights, divided among the processes."""
    training: Any
    """How the task is learnt: `ImageTraining` or `TextTraining`."""
    search_space: Any
    """Options of the space, such as num_nodes."""
    network: Any
    """The supernet's size."""
    final_network: Any
    """The size of the network to retrain, written to the spec."""
    sgd: SgdConfig
    """The optimiser of the shared weights."""
    policy: PolicyConfig
    reinforce: ReinforceConfig
    policy_steps: int
    """Updates of the policy after each epoch. Paper: 2000; authors' micro code: 30."""
    policy_samples: int
    """Architectures scored for each update. Paper: 1; authors' micro code: 10."""
    control_samples: int
    """Uniformly random architectures scored on the same minibatch, only for comparison."""
    reward_batch_size: int
    """Validation images, or windows of text, on which all architectures of a policy step are scored."""
    derivation: DeriveConfig
    policy_start_epoch: int = 0
    """Epochs of shared weights only, before the first with policy steps. The paper and the authors' code have none; a
    short search gains by waiting, since operations with many weights score badly before they are trained."""
    min_steps: int = 0
    """Of the shared weights in all epochs together: if train is too small, an epoch makes up to 8 passes over it."""
    architectures_per_step: int = 1
    """Child models, in each process, whose gradients a step of the shared weights averages: the paper's M."""
    latency: LatencyTarget | None = None
    """Latency target of the deployed network; None leaves latency out of the reward."""
    precision: Precision = "auto"
    """auto: see `device.products_precision`."""
    threads: int = 0
    """On a CPU; 0 chooses as many as shorten a step and as other processes leave free, see `threads`."""
    memory_budget_mb: int = 2048
    """For training and validation images; images that do not fit stream from the store."""
    dataset_sha256: str = ""
    """The store's digest, so that a run is not resumed with other data."""

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ConfigError(unknown("space", self.space, tuple(SPACES)))
        for name in (
            "num_epochs",
            "batch_size",
            "policy_steps",
            "policy_samples",
            "reward_batch_size",
            "architectures_per_step",
            "memory_budget_mb",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.policy_start_epoch >= self.num_epochs:
            raise ConfigError(
                f"policy_start_epoch is {self.policy_start_epoch}, so of {self.num_epochs} epochs (num_epochs) none "
                "would train the policy; set a lower one, too"
            )
        for name in ("seed", "control_samples", "policy_start_epoch", "threads", "min_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.policy.kind == "lstm" and self.reinforce.baseline == "leave_one_out" and self.policy_samples < 2:
            raise ConfigError("the leave_one_out baseline needs policy_samples of at least 2")
        check_policy(self.policy, self.search_space.steps())
        check_training(self.space, self.training)
        check_steps(self.sgd, self.training, batch_size=self.batch_size)

    @staticmethod
    def upgraded(table: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a search's table in the form of this version, with values of operations by name.

        Earlier versions stored them as lists, in the order of the published operations.
        """
        space, policy = table.get("space"), table.get("policy")
        if not isinstance(space, str) or space not in SPACES or not isinstance(policy, Mapping):
            return dict(table)
        names: Sequence[str] = getattr(SPACES[space], "PUBLISHED_OPERATIONS", ())
        named = {
            key: dict(zip(names, value, strict=False))
            for key, value in policy.items()
            if key in ("operation_bias", "operation_logit_start") and isinstance(value, list)
        }
        return {**table, "policy": {**policy, **named}}


def config_types(space: str) -> dict[str, type[Any]]:
    """Returns the classes of the SearchConfig fields that depend on the space, for reading a configuration."""
    module = space_module(space)
    return {
        "search_space": module.SPACE,
        "network": module.SIZE,
        "final_network": module.SIZE,
        "training": training_type(space),
    }
