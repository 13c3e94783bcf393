"""An ONNX file as bytes: its external data files, a hash over all of them, and facts that sessions do not report.

Reads only the protobuf fields needed for that, so that running a model needs no `onnx` package.
Source: `onnx.proto3`, for the field numbers in the tables below, and protobuf's wire format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Message -> field number -> the message in that field, for every path from a model to its tensors.
_HOLDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA = 13  # of a tensor: pairs of key (1) and value (2)
_MODEL_GRAPH, _GRAPH_INPUT = 7, 11
_PIECE = 1 << 20


class PartError(ValueError):
    """An external data file of a model is missing, or outside of its folder."""


@dataclass(frozen=True)
class OnnxFile:
    """The bytes of a model file, and where they come from."""

    path: Path
    data: bytes

    @cached_property
    def parts(self) -> tuple[Path, ...]:
        """The files beside it that hold weights (ONNX external data); each once, sorted by name.

        Raises: PartError: one is missing, or outside of the model's folder.
        """
        for place, path in self.named_parts.items():
            if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
                raise PartError(f"weights in {place!r}, which is outside of the model's folder, are not read")
            if not path.is_file():
                raise PartError(f"its weights are in {place}, which is missing beside it; copy both files")
        return tuple(self.named_parts.values())

    @cached_property
    def named_parts(self) -> dict[str, Path]:
        """Name of a part in the model -> its path, where the file may be missing."""
        try:
            places = sorted(set(_external_places(memoryview(self.data), "model")))
        except (ValueError, IndexError, KeyError):
            return {}  # an incomplete file, which onnxruntime reports
        return {place: self.path.parent / place for place in places}

    @property
    def source(self) -> bytes | Path:
        """The input for onnxruntime: the bytes, or the path if there are parts, which it finds by that path."""
        return self.path if self.parts else self.data

    @cached_property
    def sha256(self) -> str:
        """Over its bytes, followed by those of its parts."""
        digest = hashlib.sha256(self.data)
        for part in self.parts:
            with open(part, "rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        return len(self.data) + sum(part.stat().st_size for part in self.parts)

    @cached_property
    def unranked_inputs(self) -> frozenset[str]:
        """Inputs without a stated number of dimensions, which sessions report as scalars."""
        names = []
        try:
            for number, graph in _fields(memoryview(self.data)):
                if number == _MODEL_GRAPH:
                    inputs = [dict(_fields(value)) for place, value in _fields(graph) if place == _GRAPH_INPUT]
                    # name 1, type 2 of a value; tensor_type 1 of a type; shape 2 of a tensor's type
                    names += [bytes(value[1]).decode() for value in inputs if not _has(value.get(2), 1, 2)]
        except (ValueError, IndexError, KeyError):
            return frozenset()
        return frozenset(names)


def _external_places(message: memoryview, kind: str) -> Iterator[str]:
    """Names of the external data files of all tensors within a message. Raises: as `_fields`, and KeyError."""
    for number, value in _fields(message):
        if kind == "tensor":
            if number == _EXTERNAL_DATA:
                entry = {key: bytes(text).decode() for key, text in _fields(value)}
                if entry.get(1) == "location":
                    yield entry[2]
        elif number in _HOLDS[kind]:
            yield from _external_places(value, _HOLDS[kind][number])


def _has(message: memoryview | None, *path: int) -> bool:
    """Whether a message has the nested field at a path of field numbers."""
    if message is None or not path:
        return message is not None
    return _has(dict(_fields(message)).get(path[0]), *path[1:])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of the fields that are messages, strings or bytes. Raises: ValueError, IndexError."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, place = _varint(message, place)
        elif wire_type == _BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("cut short")
            yield number, message[place : place + length]
            place += length
        elif wire_type in (_FIXED64, _FIXED32):
            place += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The value of a varint, and the position after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
