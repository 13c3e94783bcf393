"""A model in float16, for CUDA: half the bytes, and tensor cores if available. Inputs and outputs keep their types."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from runtime.models import ort  # noqa: F401 - it switches telemetry off before anything of onnxruntime is imported

# isort: split
from onnxruntime.transformers.float16 import convert_float_to_float16


def candidates(model: onnx.ModelProto, calibration: Callable[[], np.ndarray]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """See `exporter/delivery/forms.py`: there is one setting, which needs no pictures."""
    yield "outputs in float32", to_float16(model)


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float16 weights and arithmetic; its outputs are cast back to float32.

    Source: `onnxruntime.transformers.float16`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    return converted
