"""Inputs of an inference request: checked against the model's signature, read from JSON or from the bytes after it."""

# B batch

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from runtime.models.inputs import TensorSpec
from runtime.models.protocol_names import DATATYPES, HEADER_LENGTH
from runtime.serving.errors import RequestError
from runtime.serving.protocol.entries import cut, objects_of, spec_of, tensor_parameters
from runtime.serving.protocol.json_objects import ValuesError, read_values
from runtime.serving.protocol.signature import Signature


@dataclass(frozen=True)
class Tensor:
    """An input."""

    spec: TensorSpec
    shape: tuple[int, ...]
    array: np.ndarray | None
    """None if it is in the bytes that follow the JSON."""
    start: int = 0
    """Its offset in those bytes."""

    @property
    def num_bytes(self) -> int:
        """Number of bytes it has after the JSON."""
        return 0 if self.array is not None else math.prod(self.shape) * self.spec.dtype.itemsize

    def of(self, tensors: memoryview) -> np.ndarray:
        if self.array is not None:
            return self.array
        array: np.ndarray = np.ndarray(self.shape, self.spec.dtype, tensors, self.start)
        # Tensors follow JSON of any length, but onnxruntime needs aligned addresses.
        return array if array.flags.aligned else array.copy()


def read_inputs(
    document: Mapping[str, Any], lists: dict[str, memoryview], *, signature: Signature, has_header: bool
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    offset = 0
    for entry in objects_of(document.get("inputs"), at="inputs"):
        spec = spec_of(entry, signature, role="input")
        if spec.name in tensors:
            raise RequestError(f"input '{spec.name}' is given twice")
        _check_datatype(entry, spec=spec)
        shape = _shape(entry, spec=spec, sizes=sizes)
        parameters = tensor_parameters(entry, at=f"input '{spec.name}'")
        size = _binary_size(parameters, spec=spec, has_header=has_header)
        if size is None:
            array = _of_json(entry, lists, spec=spec, shape=entry["shape"]).reshape(shape)
            tensors[spec.name] = Tensor(spec, shape, array)
            continue
        if "data" in entry:
            raise RequestError(f"input '{spec.name}' has both data and binary_data_size")
        check_size(size, spec=spec, shape=shape)
        tensors[spec.name] = Tensor(spec, shape, None, offset)
        offset += size
    if missing := [spec.name for spec in signature.inputs if spec.name not in tensors]:
        raise RequestError(
            f"expected {len(signature.inputs)} inputs but got {len(tensors)} for model '{signature.model}': "
            f"missing {', '.join(missing)}"
        )
    return tensors


def _check_datatype(entry: Mapping[str, Any], *, spec: TensorSpec) -> None:
    datatype, expected = entry.get("datatype"), DATATYPES[spec.dtype]
    if datatype != expected:
        found = cut(datatype) if isinstance(datatype, str) else "missing"
        raise RequestError(f"input '{spec.name}': datatype is {found}, but the model takes {expected}")


def _shape(entry: Mapping[str, Any], *, spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape of an input, as the model takes it.

    A batch of single values may also be sent as [B, 1], as with Triton.
    Args: sizes: free dimension -> its size in earlier inputs; this input's are added.
    """
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise RequestError(f"input '{spec.name}': shape must be a list of whole numbers")
    if len(spec.shape) == 1 and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    fits = len(shape) == len(spec.shape) and all(
        found >= 1 if isinstance(wanted, str) else found == wanted
        for found, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size if isinstance(size, int) else -1) for size in spec.shape)
        raise RequestError(
            f"unexpected shape for input '{spec.name}'. Expected [{wanted}], got {cut(str(shape).replace(' ', ''))}"
        )
    for found, name in zip(shape, spec.shape, strict=True):
        if isinstance(name, str) and sizes.setdefault(name, found) != found:
            raise RequestError(f"input '{spec.name}': {name} is {found}, but {sizes[name]} in another input")
    return tuple(shape)


def _binary_size(parameters: Mapping[str, Any], *, spec: TensorSpec, has_header: bool) -> int | None:
    if "binary_data_size" not in parameters:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise RequestError(f"input '{spec.name}': binary_data_size must be a whole number")
    if not has_header:
        raise RequestError(
            f"must specify valid '{HEADER_LENGTH}' in request header when passing inputs in binary "
            f"data format: input '{spec.name}'"
        )
    return size


def check_size(size: int, *, spec: TensorSpec, shape: Sequence[int]) -> None:
    expected = math.prod(shape) * spec.dtype.itemsize
    if size != expected:
        raise RequestError(
            f"unexpected total byte size {size} for input '{spec.name}', expecting {expected}: "
            f"{DATATYPES[spec.dtype]} of shape {list(shape)}"
        )


def _of_json(
    entry: Mapping[str, Any], lists: dict[str, memoryview], *, spec: TensorSpec, shape: Sequence[int]
) -> np.ndarray:
    """The values of `data`, flat or nested like the shape; its entry is removed from `lists`."""
    data = entry.get("data")
    if isinstance(data, list):
        # Its key was written with escapes, or it contains something other than numbers.
        text = memoryview(orjson.dumps(data))
    elif isinstance(data, str) and data in lists:
        text = lists.pop(data)
    else:
        raise RequestError(f"input '{spec.name}': data must be a list, or its size told as binary_data_size")
    try:
        return read_values(text, dtype=spec.dtype, shape=shape)
    except ValuesError as error:
        raise RequestError(f"input '{spec.name}': data {error}") from None


def batch_size_of(tensors: Mapping[str, Tensor], *, signature: Signature) -> int:
    sizes = {name: tensor.shape[0] for name, tensor in tensors.items()}
    batch_size = next(iter(sizes.values()))
    if any(size != batch_size for size in sizes.values()):
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise RequestError(f"inputs must be of one batch size, but are of: {told}")
    if batch_size > signature.max_batch_size:
        raise RequestError(
            f"inference request batch-size must be <= {signature.max_batch_size} for '{signature.model}', "
            f"but is {batch_size}"
        )
    return batch_size
