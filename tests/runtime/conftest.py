"""Tiny models as `enas export` writes them: uint8 images in, normalised, averaged per channel, one matrix, logits."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("dark", "grey", "bright")
SHAPE = (6, 8, 1)
# Logits of a mean brightness m in [0, 1]: largest at 0 for dark, 0.5 for grey, 1 for bright.
WEIGHT = np.array([[-8.0, 0.0, 8.0]], dtype=np.float32)
BIAS = np.array([3.0, 1.0, -5.0], dtype=np.float32)


def expected_logits(images: np.ndarray) -> np.ndarray:
    """What the tiny model computes, in numpy: [B, H, W, C] -> [B, K]."""
    means = (images.astype(np.float64) / 255).mean(axis=(1, 2))
    return means @ np.repeat(WEIGHT, images.shape[3], axis=0) / images.shape[3] + BIAS


def metadata(shape: tuple[int, int, int] = SHAPE, **changes: Any) -> dict[str, Any]:
    """The `enas.*` entries of the tiny model; a change to None leaves one out."""
    height, width, channels = shape
    images = np.stack([np.full(shape, value, dtype=np.uint8) for value in (0, 128, 255)])
    entries = {
        "spec": {"schema": 1, "task": {"dataset": "brightness"}},
        "classes": list(CLASSES),
        "preprocess": {
            "resize": "squash",
            "height": height,
            "width": width,
            "channels": channels,
            "interpolation": "bilinear",
        },
        "golden": {
            "images": base64.b64encode(images.tobytes()).decode(),
            "shape": list(images.shape),
            "logits": expected_logits(images).tolist(),
            "atol": 1e-4,
            "rtol": 1e-4,
        },
        "accuracy": {"split": "test", "value": 0.9125, "count": 2000},
        "precision": "fp32",
    }
    return {key: value for key, value in (entries | changes).items() if value is not None}


def tiny_graph(
    shape: tuple[int, int, int] = SHAPE,
    *,
    input_name: str = "images",
    outputs: tuple[str, str] = ("logits", "probabilities"),
) -> onnx.GraphProto:
    channels = shape[2]
    logits, probabilities = outputs
    return helper.make_graph(
        [
            helper.make_node("Cast", [input_name], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("Gemm", ["features", "weight", "bias"], [logits]),
            helper.make_node("Softmax", [logits], [probabilities], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(CLASSES)]) for name in outputs],
        [
            numpy_helper.from_array(np.float32(255), "scale"),
            numpy_helper.from_array(np.repeat(WEIGHT, channels, axis=0) / channels, "weight"),
            numpy_helper.from_array(BIAS, "bias"),
        ],
    )


def save(
    path: Path, graph: onnx.GraphProto, entries: Mapping[str, Any], *, broken: Mapping[str, str] | None = None
) -> Path:
    """Write a model with its entries as JSON, and `broken` ones as they are."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    texts = {key: json.dumps(value) for key, value in entries.items()} | dict(broken or {})
    helper.set_model_props(model, {f"enas.{key}": text for key, text in texts.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """A whole tiny model."""
    return save(tmp_path / "tiny.onnx", tiny_graph(), metadata())


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A run directory whose export is the tiny model."""
    save(tmp_path / "run" / "model.onnx", tiny_graph(), metadata())
    return tmp_path / "run"
