"""The other forms that a model may have: their names, what makes them, and how near their answers must stay.

Options are made of them, so nothing heavy is loaded here.
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
    """Training images to calibrate with, uint8 [N, H, W, C]; read when they are asked for."""
    Candidate = tuple[str, onnx.ModelProto]
    """A setting worth trying, in words, and the model in it."""


class _Conversion(Protocol):
    """What a module of a form offers."""

    def candidates(self, model: onnx.ModelProto, calibration: Calibration) -> Iterator[Candidate]:
        """The model, which is left as it is, in each setting that is worth trying."""
        ...


@dataclass(frozen=True)
class Form:
    """A form that a model may have."""

    name: str
    """The file is `model-NAME.onnx`; it is the precision in its metadata, too."""
    option: str
    """Of `enas export`, which asks for it."""
    note: str
    """What the option's help says of it."""
    module: str
    """Of its conversion, in `exporter/conversion/transforms/`."""
    atol: float
    """Of its golden samples: kernels of other machines round otherwise, to a step of its numbers."""
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
