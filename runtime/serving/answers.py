"""Answers of the Open Inference Protocol as bytes: tensors as JSON, as binary data, or as classes with labels."""

# B batch, K classes

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from runtime.serving.protocol import InferRequest
from runtime.serving.request_outputs import OutputWish
from runtime.serving.signature import DATATYPES


@dataclass(frozen=True)
class Answer:
    body: bytes
    num_json_bytes: int | None
    """Of the body, where tensors follow it as bytes; None if all of it is JSON."""


def encode_infer(
    request: InferRequest, outputs: Mapping[str, np.ndarray], *, model: str, version: str, labels: Sequence[str]
) -> Answer:
    """The answer to a request.

    Args: outputs: output -> [B, …]. labels: names of classes, told with an output that has as many columns.
    """
    told: list[dict[str, Any]] = []
    payloads: list[bytes | memoryview] = []
    for wish in request.outputs:
        entry, payload = _encode(wish, outputs[wish.name], labels=labels)
        told.append(entry)
        if payload is not None:
            payloads.append(payload)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": told}
    if request.id is not None:
        document["id"] = request.id
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(wish.is_binary for wish in request.outputs):
        return Answer(header, None)
    return Answer(b"".join([header, *payloads]), len(header))


def top_classes(values: np.ndarray, *, top: int) -> np.ndarray:
    """The columns of the `top` largest values of [K], largest first, of equal ones the first."""
    return np.argsort(-values.astype(np.float64), kind="stable")[:top]


def _encode(
    wish: OutputWish, array: np.ndarray, *, labels: Sequence[str]
) -> tuple[dict[str, Any], bytes | memoryview | None]:
    """An output's entry in the JSON, and its bytes if it travels so."""
    if wish.top:
        return _encode_classes(wish, array, labels=labels)
    entry: dict[str, Any] = {"name": wish.name, "datatype": DATATYPES[array.dtype], "shape": list(array.shape)}
    array = np.ascontiguousarray(array)
    if wish.is_binary:
        entry["parameters"] = {"binary_data_size": array.nbytes}
        return entry, array.data.cast("B") if array.size else b""
    entry["data"] = array.ravel()
    return entry, None


def _encode_classes(
    wish: OutputWish, array: np.ndarray, *, labels: Sequence[str]
) -> tuple[dict[str, Any], bytes | None]:
    """`<value>:<index>:<label>` of the largest values of every row of [B, K]."""
    has_labels = len(labels) == array.shape[1]
    texts = [
        f"{row[index]:.6f}:{index}" + (f":{labels[index]}" if has_labels else "")
        for row in array
        for index in top_classes(row, top=wish.top)
    ]
    shape = [len(array), min(wish.top, array.shape[1])]
    entry: dict[str, Any] = {"name": wish.name, "datatype": "BYTES", "shape": shape}
    if not wish.is_binary:
        entry["data"] = texts
        return entry, None
    payload = b"".join(struct.pack("<I", len(text)) + text for text in (text.encode() for text in texts))
    entry["parameters"] = {"binary_data_size": len(payload)}
    return entry, payload
