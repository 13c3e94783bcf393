"""Converts a trained network to one ONNX file that opens in plain onnxruntime, without this toolchain.

An image classifier takes raw pixels, uint8 [batch, height, width, channel]; scaling and normalisation are in the graph.
The file's metadata contains the spec, the classes, how to prepare a picture, golden samples and a drawing. Language
models are in `convert_text.py`.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from exporter.conversion.quiet import quiet
from exporter.conversion.transforms.passes import drop_initializer_types, transform
from foundation.files import strict_json
from foundation.machine import toolchain_version
from runtime.models.images import PIXELS
from runtime.models.tolerance import Tolerance
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification

DEFAULT_OPSET = 18
NUM_GOLDEN = 4
_MOST_GOLDEN_BYTES = 64 * 1024
# The first onnxruntime that loads files of an opset, as tested; the oldest supported version loads earlier opsets.
_FIRST_ONNXRUNTIME = {22: "1.21", 23: "1.23"}
OLDEST_ONNXRUNTIME = "1.20"


def least_onnxruntime(opset: int) -> str:
    """The oldest onnxruntime in which files of an opset are known to load."""
    return _FIRST_ONNXRUNTIME.get(opset, OLDEST_ONNXRUNTIME)


def num_golden(input_shape: Sequence[int]) -> int:
    """The number of golden images in a model: fewer if they are large, because they would outweigh its weights."""
    return max(1, min(NUM_GOLDEN, _MOST_GOLDEN_BYTES // math.prod(input_shape)))


class DeployedNetwork(nn.Module):
    """Pictures uint8 [B, H, W, C] -> logits and probabilities, float32 [B, classes].

    network: images [B, C, H, W] -> (logits [B, classes], auxiliary logits or None). mean, std: per channel, of pixels
    scaled to [0, 1].
    """

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer("shift", shift.float().view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, _ = self.network(images.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return logits, logits.softmax(dim=1)


def convert(network: DeployedNetwork, *, input_shape: tuple[int, ...], opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The network as ONNX, for any batch size, after all passes of `transforms`.

    Args: input_shape: H, W, C.
    """
    # Two images: the exporter would treat a batch size of one as a constant.
    example = torch.zeros(2, *input_shape, dtype=torch.uint8)
    model = to_onnx(network, (example,), inputs=["images"], outputs=["logits", "probabilities"], opset=opset)
    return transform(model)


def to_onnx(
    network: nn.Module, examples: tuple[Tensor, ...], *, inputs: list[str], outputs: list[str], opset: int
) -> onnx.ModelProto:
    """A network as ONNX with float32 weights inside the file; the first axis of every input, the batch, is free.

    The exporter's notes about source files are stripped.
    """
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.onnx.export(
            network.cpu().eval(),
            examples,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            opset_version=opset,
            external_data=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model.graph)
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]
    del model.metadata_props[:]
    drop_initializer_types(model.graph)
    sign(model)
    return model


def sign(model: onnx.ModelProto) -> None:
    """Writes this toolchain's name and version into the model."""
    model.producer_name, model.producer_version = "enas-toolchain", toolchain_version()


def describe(
    model: onnx.ModelProto,
    spec: Spec,
    *,
    golden_images: np.ndarray,
    golden_logits: np.ndarray,
    tolerance: Tolerance,
    accuracy: Mapping[str, Any],
    drawing: str,
    origin: Mapping[str, str],
    resize: str,
    block: int | None = None,
) -> None:
    """Writes the model's metadata as JSON strings under `enas.*`.

    Args: golden_images: uint8 [n, H, W, C], with their golden_logits [n, classes]. accuracy: split, value in [0, 1],
    count. origin: of the weights, for `enas.producer`. resize: how pictures of the data set were resized.
    block: channels were filled up to multiples of this number, so that the graph is wider than the spec.
    """
    assert isinstance(spec.task, ImageClassification)
    height, width, channels = spec.task.input_shape
    entries = {
        "enas.spec": spec.to_document(),
        "enas.classes": spec.task.classes,
        "enas.preprocess": {
            "resize": resize,
            "interpolation": "bilinear",
            "height": height,
            "width": width,
            "channels": channels,
        },
        "enas.pixels": PIXELS,
        "enas.golden": {
            "images": base64.b64encode(golden_images.tobytes()).decode(),
            "shape": golden_images.shape,
            "logits": golden_logits.tolist(),
            "atol": tolerance.atol,
            "rtol": tolerance.rtol,
        },
    }
    if block is not None:
        entries["enas.align"] = {"version": 1, "block": block}
    # The format of ultralytics' tools, which read it with literal_eval.
    names = {"names": repr(dict(enumerate(spec.task.classes)))}
    write_metadata(model, entries, accuracy=accuracy, drawing=drawing, origin=origin, verbatim=names)


def write_metadata(
    model: onnx.ModelProto,
    entries: Mapping[str, Any],
    *,
    accuracy: Mapping[str, Any],
    drawing: str,
    origin: Mapping[str, str],
    verbatim: Mapping[str, str] | None = None,
) -> None:
    """Writes entries, and those that all models have, into the model as JSON strings; `verbatim` entries unchanged."""
    entries = {
        **entries,
        "enas.drawing": drawing,
        "enas.accuracy": dict(accuracy),
        "enas.precision": "fp32",
        "enas.producer": {
            "name": model.producer_name,
            "version": model.producer_version,
            "torch": torch.__version__,
            **origin,
        },
    }
    properties = {key: strict_json(value, indent=None) for key, value in entries.items()}
    onnx.helper.set_model_props(model, {**properties, **(verbatim or {})})


def check(model: onnx.ModelProto) -> bytes:
    """Returns the model's bytes, after ONNX's checker has accepted the model."""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(graph: onnx.GraphProto) -> None:
    """Drop the exporter's debug metadata: it holds local paths, and makes equal models differ in their bytes."""
    del graph.metadata_props[:]
    for value in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del value.metadata_props[:]
        if isinstance(value, onnx.NodeProto):
            value.ClearField("doc_string")
            for attribute in value.attribute:
                if attribute.HasField("g"):
                    _strip(attribute.g)
