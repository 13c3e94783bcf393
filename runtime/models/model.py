"""An exported image classifier and its `predict`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runtime.models.artifact import (
    Artifact,
    ArtifactError,
    GoldenCheck,
    InputError,
    open_artifact,
    require_kind,
    require_sound,
)
from runtime.models.images import ImageError, Preprocess, check_pixels
from runtime.models.providers import Provider
from runtime.models.tolerance import Tolerance

# B batch, H height, W width, C channels, K classes

_INPUT = "images"
_OUTPUTS = ("logits", "probabilities")


class Prediction(NamedTuple):
    logits: np.ndarray
    """[B, K] float32."""
    probabilities: np.ndarray
    """[B, K] float32, rows sum to 1."""


@dataclass(frozen=True)
class Model(Artifact):
    """An exported model, open and checked: input `images` uint8 [B, H, W, C], outputs `logits` and `probabilities`."""

    image_shape: tuple[int, int, int]
    """H, W, C."""
    classes: tuple[str, ...]
    preprocess: Preprocess

    @classmethod
    def open(cls, path: Path, *, provider: Provider = "auto", threads: int | None = None) -> Model:
        """Open a model file, or the `model.onnx` of a run directory. Raises: as `open_artifact` and `of`."""
        return cls.of(*open_artifact(path, provider=provider, threads=threads))

    @classmethod
    def of(cls, artifact: Artifact, problems: Sequence[str]) -> Model:
        """Check that an artifact is an image classifier.

        Args: problems: those that `open_artifact` found.
        Raises: ArtifactError: it is another kind of model, or has problems.
        """
        require_kind(artifact, "an image classifier")
        ort, metadata = artifact.session.ort, artifact.metadata
        problems = [*problems, *_signature_problems(ort), *_metadata_problems(metadata)]
        require_sound(artifact, problems or _disagreements(ort, metadata))
        preprocess = Preprocess.from_json(metadata["preprocess"])
        return cls(
            **vars(artifact),
            image_shape=(preprocess.height, preprocess.width, preprocess.channels),
            classes=tuple(metadata["classes"]),
            preprocess=preprocess,
        )

    def predict(self, images: np.ndarray) -> Prediction:
        """Logits and probabilities of `images` [B, H, W, C] uint8, B >= 1. Raises: InputError: other type or shape."""
        self._check(images)
        return Prediction(*self.session.ort.run(_OUTPUTS, {_INPUT: images}))

    def golden_samples(self) -> tuple[np.ndarray, np.ndarray]:
        """The images embedded in the model, uint8 [n, H, W, C], with their logits [n, K].

        Raises: ArtifactError: there are none, or they cannot be read.
        """
        with self.reading_golden() as golden:
            pixels = np.frombuffer(base64.b64decode(golden["images"], validate=True), dtype=np.uint8)
            return pixels.reshape(golden["shape"]), np.array(golden["logits"], dtype=np.float32)

    def check_golden(self) -> GoldenCheck:
        """Run the model on its embedded images and compare with the embedded logits.

        Raises: as `golden_samples`.
        """
        images, expected = self.golden_samples()
        with self.reading_golden() as golden:
            tolerance = Tolerance.of(golden)
        logits = self.predict(images).logits
        if logits.shape != expected.shape:
            raise ArtifactError(f"{self.path}: enas.golden: logits of shape {expected.shape} for {len(images)} images")
        return GoldenCheck.of(logits, expected, tolerance=tolerance)

    def _check(self, images: np.ndarray) -> None:
        expected = ", ".join(map(str, self.image_shape))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            found = ", ".join(map(str, images.shape))
            raise InputError(f"images are {images.dtype} [{found}], but the model takes uint8 [batch, {expected}]")
        if len(images) == 0:
            raise InputError("the batch holds no image")


def _metadata_problems(metadata: Mapping[str, Any]) -> list[str]:
    problems = []
    classes = metadata.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        problems.append("enas.classes is not a list of names")
    try:
        if not isinstance(metadata.get("preprocess"), dict):
            raise ImageError("not an object")
        Preprocess.from_json(metadata["preprocess"])
    except ImageError as error:
        problems.append(f"enas.preprocess: {error}")
    try:
        check_pixels(metadata.get("pixels"))
    except ImageError as error:
        problems.append(f"enas.pixels: {error}")
    return problems


def _signature_problems(ort: Any) -> list[str]:
    inputs, outputs = ort.get_inputs(), {output.name for output in ort.get_outputs()}
    problems = []
    if [i.name for i in inputs] != [_INPUT]:
        problems.append(f"its inputs are {', '.join(i.name for i in inputs) or 'none'}, expected {_INPUT}")
    elif inputs[0].type != "tensor(uint8)" or len(inputs[0].shape) != 4 or not isinstance(inputs[0].shape[3], int):
        problems.append(
            f"{_INPUT} is {inputs[0].type} {inputs[0].shape}, expected tensor(uint8) [batch, height, width, channels]"
        )
    problems += [f"it has no output {name}" for name in _OUTPUTS if name not in outputs]
    return problems


def _disagreements(ort: Any, metadata: Mapping[str, Any]) -> list[str]:
    """Contradictions between the graph and the metadata, each valid by itself."""
    problems = []
    prepared = [metadata["preprocess"][key] for key in ("height", "width", "channels")]
    taken = ort.get_inputs()[0].shape[1:]
    # A graph that resizes images itself leaves height and width free.
    if any(isinstance(size, int) and size != own for own, size in zip(prepared, taken, strict=True)):
        problems.append(f"enas.preprocess makes images of {prepared}, but the graph takes {taken}")
    logits = next(output for output in ort.get_outputs() if output.name == "logits")
    if logits.shape[-1] != len(metadata["classes"]):
        problems.append(f"enas.classes names {len(metadata['classes'])} classes, but logits are {logits.shape}")
    return problems
