"""The teacher of a retraining: one ONNX classifier or several, examined before they teach."""

# M models, B batch, C channels, H height, W width, K classes

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datasets.batches import ImageBatches
from datasets.store import ImageStore
from exporter.retraining.teacher_model import Layout, StatedInput, TeacherError, TeacherModel
from foundation.document import ConfigError
from foundation.seeds import numpy_generator
from runtime.models.providers import Provider
from searcher.lineage import is_model_current, is_retraining_outdated
from searcher.running.run_folder import read_toml
from searcher.training.distillation import Distillation

_NUM_EXAMINED = 1000
_BATCH_SIZE = 250


@dataclass(frozen=True)
class TeacherConfig:
    """The models that teach besides the labels, and their weight in the loss. Without models there is no teacher."""

    models: tuple[str, ...] = ()
    """ONNX files, or runs with a `model.onnx`; the outputs of several models are averaged as probabilities."""
    sha256: tuple[str, ...] = ()
    """Digest of each model's file, so that a run does not resume with another teacher."""
    temperature: float = 4.0
    """Temperature of both softmaxes: the higher, the more the wrong classes count. Hinton et al. 2015: 1 to 20."""
    weight: float = 0.9
    """Share of the teacher in the loss, in (0, 1]; the labels have the rest. Beyer et al. 2022: 1."""
    layout: Layout = "auto"
    """Order of the axes of pictures; auto infers it from the position of the 1 or 3 channels. Like `size`, `mean` and
    `std`, it applies to all models whose files leave it open."""
    size: int = 0
    """Side of pictures in pixels where the file leaves it open; 0 for the data set's own."""
    mean: tuple[float, ...] = ()
    """Mean of pixels in [0, 1], one value for each channel or for all, for models that take floats. Models that take
    uint8, like ours, have it in the graph."""
    std: tuple[float, ...] = ()
    """Standard deviation, like `mean`."""
    provider: Literal["auto", "cpu"] = "auto"
    """auto runs the models on the device that trains the network."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 1_000:  # beyond, outputs overflow or all look alike
            raise ConfigError(f"temperature is {self.temperature}; expected 0.01 to 1000")
        if not 0 < self.weight <= 1:
            raise ConfigError(f"weight is {self.weight}; expected above 0 and up to 1")
        if self.size < 0:
            raise ConfigError(f"size is {self.size}; it must not be negative")
        if any(not value > 0 for value in self.std):
            raise ConfigError("std must be above 0")
        if self.sha256 and len(self.sha256) != len(self.models):
            raise ConfigError("sha256 has not as many entries as models")

    @property
    def stated(self) -> StatedInput:
        """The user's description of the models' input."""
        return StatedInput(self.layout, self.size, self.mean, self.std)

    @property
    def of_any_file(self) -> TeacherConfig:
        """The configuration without digests, for a run that has not begun: it uses the files as they are then."""
        return replace(self, sha256=())

    def begun_in(self, config_file: Path) -> TeacherConfig | None:
        """The configuration with the models as a training that has begun records them; None if it uses other files."""
        found = read_toml(config_file).get("teacher", {})
        models, sha256 = tuple(found.get("models", ())), tuple(found.get("sha256", ()))
        if tuple(map(os.path.abspath, models)) == tuple(map(os.path.abspath, self.models)):
            return replace(self, models=models, sha256=sha256)
        return None


@dataclass(frozen=True)
class Examined:
    """The result of examining a model before it teaches."""

    file: str
    sha256: str
    accuracy: float
    """In [0, 1], on `count` images of valid."""
    count: int
    runs_on: str

    def __str__(self) -> str:
        return f"teacher {self.file}: {self.accuracy:.2%} of {self.count:,} images of valid, on {self.runs_on}"


class Teachers:
    """The opened and examined models of a teacher."""

    def __init__(self, config: TeacherConfig, *, store: ImageStore, device: torch.device) -> None:
        """device: where the network is trained.

        Raises: ArtifactError, ProviderError, TeacherError: see `TeacherModel.open`; or a model is not the one that the
        run began with, or belongs to a run that has retrained its network since; or it cannot teach: its outputs are
        not finite, are no better than chance, or are for classes in another order.
        """
        self._config = config
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (store.mean, store.std)
        )
        provider: Provider = "cpu" if config.provider == "cpu" or device.type == "cpu" else "cuda"
        valid = ImageBatches.load(store, "valid", device=device)
        numbers = numpy_generator(0, "teacher").permutation(valid.num_images)[:_NUM_EXAMINED]
        self.distillation = Distillation(self, temperature=config.temperature, weight=config.weight)
        """The distillation from these models, for the learner."""
        self._models: list[TeacherModel] = []
        self.examined: list[Examined] = []
        for path in config.models:
            if not config.sha256:
                _check_is_exported(Path(path))
            model = TeacherModel.open(
                path,
                classes=store.classes,
                image_shape=store.image_shape,
                provider=provider,
                threads=torch.get_num_threads(),
                stated=config.stated,
            )
            model, confusion = self._examine(model, valid, numbers, classes=store.classes)
            artifact = model.artifact
            accuracy, runs_on = float(np.trace(confusion) / confusion.sum()), artifact.session.describe()
            self._models.append(model)
            self.examined.append(Examined(str(artifact.path), artifact.sha256, accuracy, len(numbers), runs_on))
        changed = [one.file for one, sha in zip(self.examined, config.sha256, strict=False) if one.sha256 != sha]
        if changed:
            raise TeacherError(
                f"{changed[0]}: no longer the model that the run was begun with; put that one back, or start anew with "
                "--force and the options that the run was begun with"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """See `distillation.Teacher`."""
        pixels = self._pixels(images)
        return torch.from_numpy(np.stack([model(pixels) for model in self._models], axis=1)).to(images.device)

    @property
    def config(self) -> TeacherConfig:
        """The configuration with absolute paths, so that other processes find the models, and with their digests."""
        models = tuple(str(Path(path).absolute()) for path in self._config.models)
        return replace(self._config, models=models, sha256=tuple(one.sha256 for one in self.examined))

    def summary(self) -> list[dict[str, Any]]:
        """The examined models, as a run's summary records them."""
        return [
            {"file": one.file, "sha256": one.sha256, "valid_accuracy": one.accuracy, "valid_count": one.count}
            for one in self.examined
        ]

    def _pixels(self, images: Tensor) -> Tensor:
        """Converts normalised images back to pixels in [0, 1]; pixels that random erasing has set may lie outside."""
        return images * self._std + self._mean

    def _examine(
        self, model: TeacherModel, valid: ImageBatches, numbers: np.ndarray, *, classes: Sequence[str]
    ) -> tuple[TeacherModel, np.ndarray]:
        """Returns the model, see `TeacherModel.with_output_of`, and its confusion matrix [K, K]; a row is a label."""
        num_classes = len(classes)
        confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        for start in range(0, len(numbers), _BATCH_SIZE):
            images, labels = valid.batch(numbers[start : start + _BATCH_SIZE])
            pixels = self._pixels(images)
            if start == 0:
                model = model.with_output_of(model.raw(pixels), num_classes=num_classes)
            np.add.at(confusion, (labels.cpu().numpy(), model(pixels).argmax(1)), 1)
        check_confusion(model, confusion, classes=classes)
        return model, confusion


def _check_is_exported(path: Path) -> None:
    """Raises: TeacherError: the path is a run whose model is not verified, or not that of its present retraining."""
    if path.is_dir() and (is_retraining_outdated(path) or is_model_current(path) is False):
        export = f"`enas export {shlex.quote(str(path))}`"
        raise TeacherError(f"{path}: its model is unverified or of an earlier retraining; export it first: {export}")


def check_confusion(model: TeacherModel, confusion: np.ndarray, *, classes: Sequence[str]) -> None:
    """Raises: TeacherError: the model is no better than chance, or it names no classes and would be better with two of
    them exchanged."""
    path, right = model.artifact.path, np.diag(confusion)
    if model.columns is None:
        gain = confusion + confusion.T - right - right[:, None]  # images gained by exchanging two classes
        # Less two standard deviations: a model that cannot tell two classes apart gains or loses by chance.
        gain = gain - 2 * np.sqrt(confusion + confusion.T + right + right[:, None])
        one, other = np.unravel_index(gain.argmax(), gain.shape)
        if gain[one, other] > 0:
            raise TeacherError(
                f"{path}: it names no classes, and takes '{classes[one]}' for '{classes[other]}' more often than not: "
                "its classes seem to come in another order than the data set's; if they do not, write `names` into its "
                "metadata, the list of them"
            )
    counts = confusion.sum(1)
    recalls = right[counts > 0] / counts[counts > 0]
    chance = 1 / len(classes)
    error = math.sqrt((chance * (1 - chance) / counts[counts > 0]).sum()) / len(recalls)
    # With few images the error is large: then a tenth of the range above chance is enough.
    if recalls.mean() <= chance + min(3 * error, 0.1 * (1 - chance)):
        raise TeacherError(
            f"{path}: its balanced accuracy on {counts.sum():,} images of valid is {recalls.mean():.2%}, no better "
            "than chance; teacher.mean and teacher.std, or its classes, are not what it was trained with"
        )
