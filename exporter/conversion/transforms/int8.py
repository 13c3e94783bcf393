"""A model in int8, by calibration: weights and activations are bytes between QuantizeLinear and DequantizeLinear.

A QDQ file runs in every runtime, and fast where kernels for int8 exist. Activations are uint8 and weights int8, which
x86 multiplies fastest. Source: onnxruntime's documentation, "Quantize ONNX models".
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from exporter.conversion.quiet import quiet
from runtime.models import ort  # noqa: F401 - it switches telemetry off before anything of onnxruntime is imported

# isort: split
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.qdq_loss_debug import (
    collect_activations,
    compute_activation_error,
    create_activation_matching,
    modify_model_output_intermediate_tensors,
)

Method = Literal["minmax", "percentile", "entropy"]
_METHODS: dict[Method, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
_BATCH_SIZE = 32
_DEBUG_IMAGES = 32
_MOST_FLOAT_NODES = 4
_OF_WEIGHTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Settings:
    """How a model is quantised."""

    method: Method
    """How the range of an activation is computed from its values on the calibration pictures."""
    per_channel: bool
    """Whether each channel of a weight has its own scale."""
    reduce_range: bool
    """Whether weights have 7 bits: a CPU without VNNI adds pairs of products in 16 bits, where 8 bits overflow."""
    float_nodes: tuple[str, ...] = ()
    """Nodes that stay in float32."""

    def __str__(self) -> str:
        parts = [self.method, "per channel" if self.per_channel else "per tensor"]
        parts += ["7-bit weights"] * self.reduce_range
        return ", ".join([*parts, *([f"{len(self.float_nodes)} nodes in float32"] if self.float_nodes else [])])


def candidates(model: onnx.ModelProto, calibration: Callable[[], np.ndarray]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """See `exporter/delivery/forms.py`: every method, then the noisiest nodes left in float32."""
    images = calibration()
    reduce_range = needs_reduced_range()
    first: onnx.ModelProto | None = None
    for per_channel in (False, True):
        for method in _METHODS:
            settings = Settings(method, per_channel, reduce_range)
            quantised = to_int8(model, settings, images=images)
            first = first or quantised
            yield str(settings), quantised
    assert first is not None
    worst = noisiest_nodes(model, first, images=images, count=_MOST_FLOAT_NODES)
    settings = Settings("percentile", True, reduce_range, worst)
    yield str(settings), to_int8(model, settings, images=images)


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has neither VNNI nor ARM's dot product; True if its features are unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_vnni", "avx_vnni", "asimddp"} & set(flags)


def to_int8(model: onnx.ModelProto, settings: Settings, *, images: np.ndarray) -> onnx.ModelProto:
    """Returns the quantised model. Args: images: uint8 [N, H, W, C], for calibration."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        # From a file: if given a model, onnxruntime moves the weights out of it.
        source, result = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            calibrate_method=_METHODS[settings.method],
            nodes_to_exclude=list(settings.float_nodes),
        )
        return onnx.load(result)


def noisiest_nodes(
    model: onnx.ModelProto, quantised: onnx.ModelProto, *, images: np.ndarray, count: int
) -> tuple[str, ...]:
    """Nodes with weights whose outputs quantisation distorts most, by their signal-to-noise ratio; the worst first."""
    activations: list[Mapping[str, Sequence[np.ndarray]]] = []
    with tempfile.TemporaryDirectory() as folder, quiet():
        for name, proto in (("float32", model), ("int8", quantised)):
            source, told = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}-told.onnx"
            onnx.save(proto, source)
            modify_model_output_intermediate_tensors(source, told)
            activations.append(collect_activations(told, _Batches(images[:_DEBUG_IMAGES])))
        matched = create_activation_matching(activations[1], activations[0])
        errors = compute_activation_error(matched)
    ratios = {name: error["xmodel_err"] for name, error in errors.items() if "xmodel_err" in error}
    named = [
        (ratios[node.output[0]], node.name)
        for node in model.graph.node
        if node.op_type in _OF_WEIGHTS and node.output[0] in ratios
    ]
    return tuple(name for _, name in sorted(named)[:count])


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Pictures for onnxruntime in batches of equal size, which its histograms require; a remainder is left out."""

    def __init__(self, images: np.ndarray) -> None:
        size = min(_BATCH_SIZE, len(images))
        self._batches = iter(images[: len(images) // size * size].reshape(-1, size, *images.shape[1:]))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
