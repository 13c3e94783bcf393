"""Answers of the Open Inference Protocol: tensors as JSON, as binary data, or as classes with labels."""

# B batch, K classes

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from runtime.models.classes import top_classes
from runtime.models.protocol_names import DATATYPES, HEADER_LENGTH
from runtime.serving.connections.bodies import deflate
from runtime.serving.connections.exchange import Response, response
from runtime.serving.protocol.request_outputs import OutputWish
from runtime.serving.protocol.requests import InferRequest

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_JSON, _BYTES = b"application/json", b"application/octet-stream"
# A smaller answer is not compressed.
_SMALL_BYTES = 1024


class _Known(NamedTuple):
    """The previous answer except for its tensors."""

    wishes: tuple[OutputWish, ...]
    shapes: list[tuple[int, ...]]
    headers: list[tuple[bytes, bytes]]
    json: bytes


class InferWriter:
    """Writes answers to the requests of one `InferReader`.

    If all tensors are sent as bytes, the JSON is usually that of the previous answer, and is then reused.
    """

    def __init__(self, encoding: str | None) -> None:
        """Args: encoding: the compression that the client accepts, if any."""
        self._encoding = encoding
        self._known: _Known | None = None

    def write(
        self,
        request: InferRequest,
        outputs: Mapping[str, np.ndarray],
        *,
        model: str,
        version: str,
        labels: Sequence[str],
    ) -> Response:
        """The answer to a request.

        Args: outputs: output -> [B, …]. labels: names of classes, used for an output with the same number of columns.
        """
        wishes = request.outputs
        arrays: list[Any] = [outputs[wish.name] for wish in wishes]
        shapes = [array.shape for array in arrays]
        known = self._known
        if known is not None and known.wishes is wishes and known.shapes == shapes:
            return Response(200, known.headers, b"".join([known.json, *arrays]))
        encoded = [_encode(wish, array, labels=labels) for wish, array in zip(wishes, arrays, strict=True)]
        document = {"model_name": model, "model_version": version, "outputs": [entry for entry, _ in encoded]}
        if request.id is not None:
            document["id"] = request.id
        json = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        has_bytes = any(wish.is_binary for wish in wishes)
        body = b"".join([json, *(payload for _, payload in encoded)])
        headers = [(_HEADER_LENGTH, str(len(json)).encode())] if has_bytes else []
        if is_compressed := self._encoding is not None and len(body) >= _SMALL_BYTES:
            body = deflate(body, encoding=self._encoding)
            headers.append((b"content-encoding", self._encoding.encode()))
        whole = response(body, content_type=_BYTES if has_bytes else _JSON, headers=headers)
        if not is_compressed and all(wish.is_binary and not wish.top for wish in wishes):
            self._known = _Known(wishes, shapes, whole.headers, json)
        return whole


def _encode(wish: OutputWish, array: np.ndarray, *, labels: Sequence[str]) -> tuple[dict[str, Any], bytes | memoryview]:
    """An output's entry in the JSON, and its bytes if it is sent as bytes."""
    values: list[str] | np.ndarray
    payload: bytes | memoryview
    entry: dict[str, Any] = {"name": wish.name}
    if wish.top:
        values = _classes(array, top=wish.top, labels=labels)
        payload = b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, values))
        entry |= {"datatype": "BYTES", "shape": [len(array), min(wish.top, array.shape[1])]}
    else:
        array = np.ascontiguousarray(array)
        values, payload = array.ravel(), array.data.cast("B") if array.size else b""
        entry |= {"datatype": DATATYPES[array.dtype], "shape": list(array.shape)}
    if not wish.is_binary:
        return {**entry, "data": values}, b""
    return {**entry, "parameters": {"binary_data_size": len(payload)}}, payload


def _classes(array: np.ndarray, *, top: int, labels: Sequence[str]) -> list[str]:
    """`<value>:<index>:<label>` of the largest values of every row of [B, K]."""
    has_labels = len(labels) == array.shape[1]
    return [
        f"{row[index]:.6f}:{index}" + (f":{labels[index]}" if has_labels else "")
        for row in array
        for index in top_classes(row, top=top)
    ]
