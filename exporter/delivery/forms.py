"""The other forms that a model may have: their names, their conversions, and the tolerances of their outputs.

Command options are made from them, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Calibration = Callable[[], np.ndarray]
    """Training images to calibrate with, uint8 [N, H, W, C]; read on demand."""
    Candidate = tuple[str, onnx.ModelProto]
    """A setting worth trying, in words, and the model in it."""


class _Conversion(Protocol):
    """The interface of a form's module."""

    def candidates(self, model: onnx.ModelProto, calibration: Calibration) -> Iterator[Candidate]:
        """The model in each setting that is worth trying; `model` itself is not changed."""
        ...


@dataclass(frozen=True)
class Form:
    """A form that a model may have."""

    name: str
    """The file is `model-NAME.onnx`; the name is also the precision in its metadata."""
    option: str
    """The option of `enas export` that requests it."""
    note: str
    """Its description in the option's help."""
    module: str
    """Name of its conversion's module in `exporter/conversion/transforms/`."""
    atol: float
    """Of its golden samples: kernels of other machines round differently, by up to a step of its number format."""
    rtol: float

    @property
    def file(self) -> str:
        return f"model-{self.name}.onnx"

    def candidates(self, model: onnx.ModelProto, calibration: Calibration) -> Iterator[Candidate]:
        """The model in each setting that is worth trying."""
        conversion = cast(_Conversion, import_module(f"exporter.conversion.transforms.{self.module}"))
        return conversion.candidates(model, calibration)


_ALL = (
    Form("int8", "--int8", "calibrated on training pictures", module="int8", atol=1e-2, rtol=5e-2),
    Form("fp16", "--half", "for CUDA", module="float16", atol=1e-3, rtol=1e-2),
)
FORMS = {form.name: form for form in _ALL}
