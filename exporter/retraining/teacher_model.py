"""An ONNX classifier of any origin as a teacher: pictures of our data set in, logits in our order of classes out.

Its input is read from the file's graph, and from settings where the graph leaves it open; its classes from the file's
metadata. `teacher.py` examines whether it is a good teacher.
"""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional

from runtime.models.artifact import Artifact, load, read_model
from runtime.models.ort_errors import reason_of
from runtime.models.providers import Provider, Tuning

Layout = Literal["auto", "nchw", "nhwc"]

_CHANNEL_AXES: dict[Literal["nchw", "nhwc"], int] = {"nchw": 1, "nhwc": 3}
_TYPES: dict[str, type[np.generic]] = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_LUMINANCE = (0.299, 0.587, 0.114)
"""ITU-R BT.601, with which Pillow converts colour to grey."""
_LEAST_PROBABILITY = 1e-7


class TeacherError(ValueError):
    """A model cannot teach this data set."""


@dataclass(frozen=True)
class StatedInput:
    """The user's description of the input of models whose files leave it open; see the fields of `TeacherConfig`."""

    layout: Layout = "auto"
    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class View:
    """The form in which a model takes pictures, integers or floats."""

    dtype: type[np.generic]
    layout: Literal["nchw", "nhwc"]
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    """Mean of pixels in [0, 1]; empty for uint8, whose normalisation is in the graph."""
    std: tuple[float, ...]

    def of(self, pixels: Tensor) -> np.ndarray:
        """Converts pictures [B, C, H, W] with pixels in [0, 1] to this form."""
        pixels = pixels.float()
        if pixels.shape[1] != self.channels:
            luminance = pixels.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
            pixels = pixels.expand(-1, 3, -1, -1) if self.channels == 3 else (pixels * luminance).sum(1, keepdim=True)
        if pixels.shape[2:] != (self.height, self.width):
            size = (self.height, self.width)
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        if self.dtype is np.uint8:
            pixels = (255 * pixels).round().clamp(0, 255).byte()
        else:
            mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            pixels = (pixels - mean) / std
        ordered = pixels if self.layout == "nchw" else pixels.permute(0, 2, 3, 1)
        return np.ascontiguousarray(ordered.cpu().numpy().astype(self.dtype, copy=False))


@dataclass(frozen=True)
class TeacherModel:
    """An opened classifier. Called with pictures [B, C, H, W], pixels in [0, 1], it returns logits float32 [B, K]."""

    artifact: Artifact
    view: View
    output: str
    columns: np.ndarray | None
    """Column of each of our classes in its output, [K]; None if the file names no classes."""
    gives_probabilities: bool = False
    """Whether softmax has been applied to its output, so that the logarithm must be taken."""

    @classmethod
    def open(
        cls,
        path: str,
        *,
        classes: Sequence[str],
        image_shape: tuple[int, int, int],
        provider: Provider,
        threads: int,
        stated: StatedInput,
    ) -> TeacherModel:
        """Args: classes, image_shape: of the data set, H, W, C.

        Raises: ArtifactError: not a complete ONNX file. ProviderError: CUDA is not available. TeacherError: its input
        is not pictures or not fully known, or its classes are not the data set's.
        """
        file = read_model(Path(path))
        # Idle threads that spin would take the cores from torch, which computes while this does not.
        artifact, _ = load(file, provider=provider, threads=threads, tuning=Tuning(spinning=False))
        view = _view(artifact, stated, image_shape=image_shape)
        output = _output(artifact)
        columns = _columns(artifact, classes)
        count = next(o.shape[1] for o in artifact.session.ort.get_outputs() if o.name == output)
        if isinstance(count, int) and count != len(classes):
            raise TeacherError(f"{file.path}: it knows {count:,} classes, but the data set has {len(classes):,}")
        return cls(artifact, view, output, columns)

    def with_output_of(self, answers: np.ndarray, *, num_classes: int) -> TeacherModel:
        """The model with `gives_probabilities` set from its first outputs. Raises: TeacherError: not [B, K]."""
        if answers.ndim != 2 or answers.shape[1] != num_classes:
            raise TeacherError(
                f"{self.artifact.path}: its answers are {list(answers.shape)}, expected [batch, {num_classes}]"
            )
        sums = answers.sum(1)
        return replace(self, gives_probabilities=bool((answers >= 0).all() and np.allclose(sums, 1, atol=1e-2)))

    def raw(self, pixels: Tensor) -> np.ndarray:
        """Its unprocessed output for pictures [B, C, H, W] with pixels in [0, 1]."""
        ort, pictures = self.artifact.session.ort, self.view.of(pixels)
        (taken,) = ort.get_inputs()
        batch = taken.shape[0] if isinstance(taken.shape[0], int) else len(pictures)
        found = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            whole = part if len(part) == batch else np.concatenate([part, part[:1].repeat(batch - len(part), 0)])
            try:
                (answers,) = ort.run([self.output], {taken.name: whole})
            except Exception as error:  # onnxruntime's errors derive from Exception alone
                raise TeacherError(
                    f"{self.artifact.path}: it fails on pictures {list(whole.shape)}: {reason_of(error)}"
                ) from error
            found.append(answers[: len(part)])
        return np.concatenate(found).astype(np.float32)

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Raises: TeacherError: an answer is not a finite number."""
        answers = self.raw(pixels)
        if not np.isfinite(answers).all():
            raise TeacherError(f"{self.artifact.path}: it answers with numbers that are not finite")
        if self.gives_probabilities:
            answers = np.log(np.maximum(answers, _LEAST_PROBABILITY))
        return answers if self.columns is None else answers[:, self.columns]


def _view(artifact: Artifact, stated: StatedInput, *, image_shape: tuple[int, int, int]) -> View:
    inputs = artifact.session.ort.get_inputs()
    said = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
        raise TeacherError(f"{artifact.path}: it takes {said}; a teacher takes pictures: uint8 or float, four axes")
    dtype, shape = _TYPES[inputs[0].type], inputs[0].shape
    fits = [layout for layout, axis in _CHANNEL_AXES.items() if shape[axis] in (1, 3)]
    if stated.layout != "auto":
        layout = stated.layout
    elif len(fits) == 1:
        (layout,) = fits
    else:
        raise TeacherError(f"{artifact.path}: it takes {said}; say which axis is colour: --set teacher.layout=nchw")
    height, width, channels = (shape[2], shape[3], shape[1]) if layout == "nchw" else shape[1:]
    if not isinstance(channels, int):
        channels = image_shape[2]
    if channels not in (1, 3):
        raise TeacherError(f"{artifact.path}: it takes {said}; a teacher takes pictures of 1 or 3 channels")
    height, width = (
        side if isinstance(side, int) else stated.size or ours
        for side, ours in zip((height, width), image_shape, strict=False)
    )
    mean, std = stated.mean, stated.std
    if dtype is np.uint8:
        mean, std = (), ()
    elif {len(mean), len(std)} - {1, channels} or not (mean and std):
        raise TeacherError(
            f"{artifact.path}: it takes floats; say how pixels from 0 to 1 are normalised, with a number for each of "
            f"its {channels} channels: --set teacher.mean=[0.485,0.456,0.406] --set teacher.std=[0.229,0.224,0.225]"
        )
    return View(dtype, layout, height, width, channels, mean, std)


def _output(artifact: Artifact) -> str:
    """The name of the output `logits`, or else of the first that can be logits."""
    outputs: list[str] = [
        one.name for one in artifact.session.ort.get_outputs() if len(one.shape) == 2 and "float" in one.type
    ]
    if not outputs:
        raise TeacherError(f"{artifact.path}: none of its outputs is [batch, classes]")
    return "logits" if "logits" in outputs else outputs[0]


def _columns(artifact: Artifact, classes: Sequence[str]) -> np.ndarray | None:
    """The position of each class among the model's; None if it names none. Raises: TeacherError: it has others."""
    theirs = _names(artifact)
    if theirs is None:
        return None
    if len(theirs) != len(classes):
        raise TeacherError(f"{artifact.path}: it knows {len(theirs):,} classes, but the data set has {len(classes):,}")
    missing = [name for name in classes if name not in theirs]
    if missing or len(set(theirs)) < len(theirs):
        wanted = ", ".join(map(repr, missing[:3])) + (", …" if len(missing) > 3 else "")
        raise TeacherError(
            f"{artifact.path}: it knows other classes: {wanted or 'a name twice'} "
            f"{'is' if len(missing) < 2 else 'are'} not among {', '.join(map(repr, theirs[:3]))}, …"
        )
    return np.array([theirs.index(name) for name in classes])


def _names(artifact: Artifact) -> list[str] | None:
    """The classes as the file names them: `enas.classes`, or the `names` that ultralytics writes."""
    names: Any = artifact.metadata.get("classes")
    if names is None:
        text = artifact.session.ort.get_modelmeta().custom_metadata_map.get("names", "")
        try:
            names = ast.literal_eval(text)
            if isinstance(names, dict):
                names = [names[key] for key in sorted(names, key=int)]
        except (ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError):
            return None  # not of ultralytics' form
    return list(map(str, names)) if isinstance(names, list | tuple) else None
