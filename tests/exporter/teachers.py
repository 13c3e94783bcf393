"""ONNX classifiers to learn from, made by least squares, and pictures that they tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from datasets.catalog import load_images
from datasets.store import ImageStore
from datasets.store_writer import write_image_store
from tests.end_to_end.conftest import CLASSES, tiny_images

TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def write_store(path: Path) -> ImageStore:
    """Pictures 8×8×1 with a bar, a dot, or neither."""
    splits = {"train": tiny_images(48, 0), "valid": tiny_images(90, 1), "test": tiny_images(41, 2)}
    write_image_store(path, name="shapes", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")
    return load_images(str(path))


def fitted(store: ImageStore, *, seed: int = 0) -> np.ndarray:
    """What makes logits [K] of pixels from 0 to 1 and a one, [H * W * C + 1]: [H * W * C + 1, K]."""
    images, labels = store.images("train"), store.labels("train")
    noise = np.random.default_rng(seed).normal(0, 0.05, images.shape)
    flat = (images / 255 + noise).reshape(len(images), -1)
    design = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    weights, *_ = np.linalg.lstsq(design, 6 * np.eye(len(store.classes))[labels], rcond=0.05)
    return weights.astype(np.float32)


def write_teacher(
    path: Path,
    weights: np.ndarray,
    *,
    dtype: str = "uint8",
    shape: Sequence[int | str] = ("batch", 8, 8, 1),
    input_name: str = "images",
    softmax: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model that flattens its input, casts it to floats, scales uint8 to [0, 1], and multiplies.

    Args: weights: [pixels + 1, K].
    """
    scale = 255.0 if dtype == "uint8" else 1.0
    tensors = [
        numpy_helper.from_array(weights[:-1] / np.float32(scale), "weights"),
        numpy_helper.from_array(weights[-1], "bias"),
    ]
    nodes = [
        helper.make_node("Cast", [input_name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores" if softmax else "logits"]),
        *([helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1)] if softmax else []),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info(input_name, TYPES.get(dtype, TensorProto.INT64), shape)],
        [
            helper.make_tensor_value_info(
                "probabilities" if softmax else "logits", TensorProto.FLOAT, [shape[0], weights.shape[1]]
            )
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path
