"""Inference requests of the Open Inference Protocol, version 2 over REST, read from their bytes.

With the binary tensor extension: JSON first, `Inference-Header-Content-Length` bytes of it, then the tensors that have
a `binary_data_size`, in the order of `inputs`. Nothing here knows HTTP beyond that number, or a model beyond its
signature.

Source: kserve/open-inference-protocol, inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md, whose messages are kept where clients may know them.
"""

# B batch, K classes asked for

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from runtime.inputs import TensorSpec
from runtime.serving.errors import RequestError, UnsupportedError
from runtime.serving.json_objects import ValuesError, parse_tensors, read_values
from runtime.serving.signature import DATATYPES, Signature

_MAX_ID_LENGTH = 1024
_MAX_TIMEOUT_US = 2**62
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True)
class OutputWish:
    """An output that the client asked for."""

    name: str
    is_binary: bool
    top: int = 0
    """The most likely classes to tell instead of the tensor; 0 for the tensor."""


@dataclass(frozen=True)
class InferRequest:
    """A request, checked against the model's signature."""

    id: str | None
    feed: Mapping[str, np.ndarray]
    """Input -> [B, …]."""
    batch_size: int
    outputs: tuple[OutputWish, ...]
    timeout_s: float | None
    """How long it may wait for its turn."""


class InferReader:
    """Reads requests of one `Inference-Header-Content-Length`, such as a client sends again and again.

    Where all tensors travel as bytes, the JSON is mostly that of the request before, and is not read again then.
    """

    def __init__(self, header_length: str | None) -> None:
        """Args: header_length: None if the header is absent."""
        self._header_length = header_length
        self._known: tuple[Signature, bytes, _Plan] | None = None

    def read(self, body: bytes, signature: Signature) -> InferRequest:
        """Read an inference request.

        Args: body: as decompressed.
        Raises: RequestError, TooLargeError, UnsupportedError: it is not a request that this model can answer.
        """
        if self._known is not None:
            known_signature, known_text, plan = self._known
            if signature is known_signature and body.startswith(known_text):
                return plan.request(memoryview(body)[len(known_text) :])
        num_json_bytes = _header_length(self._header_length, num_bytes=len(body))
        if self._header_length is not None and num_json_bytes == 0:
            return _raw_request(body, signature=signature)
        text = body[:num_json_bytes]
        document, lists = parse_tensors(text)
        plan = _plan(document, lists, signature=signature, has_header=self._header_length is not None)
        if all(tensor.array is None for tensor in plan.tensors):
            self._known = (signature, text, plan)
        return plan.request(memoryview(body)[num_json_bytes:])


def _header_length(value: str | None, *, num_bytes: int) -> int:
    """How many of a body's bytes are JSON."""
    if value is None:
        return num_bytes
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise RequestError(f"Inference-Header-Content-Length is {value[:40]!r}, but must be a whole number")
    if int(value) > num_bytes:
        raise RequestError(
            f"Inference-Header-Content-Length is {value}, but the request's body has {num_bytes} bytes only"
        )
    return int(value)


def _raw_request(body: bytes, *, signature: Signature) -> InferRequest:
    """A body that is the tensor of the only input, of one row, and nothing else."""
    if len(signature.inputs) != 1:
        raise RequestError(f"a raw binary request takes a model of one input, but '{signature.model}' has more")
    spec = signature.inputs[0]
    shape = (1, *spec.shape[1:])
    if not all(isinstance(size, int) for size in shape):
        raise RequestError(f"a raw binary request takes an input of known shape, but {spec} is not")
    tensor = _Tensor(spec, tuple(map(int, shape)), None)
    _check_size(len(body), spec=spec, shape=tensor.shape)
    feed = {spec.name: tensor.of(memoryview(body))}
    wishes = tuple(OutputWish(output.name, is_binary=True) for output in signature.outputs)
    return InferRequest(id=None, feed=feed, batch_size=1, outputs=wishes, timeout_s=None)


# --- what the JSON says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """An input."""

    spec: TensorSpec
    shape: tuple[int, ...]
    array: np.ndarray | None
    """None where it is among the bytes that follow."""
    start: int = 0
    """Of those bytes, its first."""

    @property
    def num_bytes(self) -> int:
        """Of those that follow."""
        return 0 if self.array is not None else math.prod(self.shape) * self.spec.dtype.itemsize

    def of(self, tensors: memoryview) -> np.ndarray:
        if self.array is not None:
            return self.array
        array: np.ndarray = np.ndarray(self.shape, self.spec.dtype, tensors, self.start)
        # Tensors follow JSON of any length; onnxruntime reads addresses of whole elements.
        return array if array.flags.aligned else array.copy()


@dataclass(frozen=True)
class _Plan:
    """A request but for the bytes that follow its JSON."""

    model: str
    tensors: tuple[_Tensor, ...]
    num_bytes: int
    """That follow."""
    id: str | None
    batch_size: int
    outputs: tuple[OutputWish, ...]
    timeout_s: float | None

    def request(self, tensors: memoryview) -> InferRequest:
        """Raises: RequestError: not as many bytes follow as the JSON says."""
        if len(tensors) != self.num_bytes:
            raise self._missized(len(tensors))
        feed = {tensor.spec.name: tensor.of(tensors) for tensor in self.tensors}
        return InferRequest(self.id, feed, self.batch_size, self.outputs, self.timeout_s)

    def _missized(self, num_bytes: int) -> RequestError:
        if num_bytes > self.num_bytes:
            return RequestError(
                f"unexpected additional input data for model '{self.model}': {num_bytes - self.num_bytes} bytes"
            )
        short = next(tensor for tensor in self.tensors if tensor.start + tensor.num_bytes > num_bytes)
        return RequestError(
            f"unexpected size for input '{short.spec.name}', expecting "
            f"{min(short.num_bytes, short.start + short.num_bytes - num_bytes)} additional bytes"
        )


def _plan(
    document: Mapping[str, Any], lists: dict[str, memoryview], *, signature: Signature, has_header: bool
) -> _Plan:
    """Args: lists: those called `data`, by what stands for them in the document; they are taken out of it."""
    parameters = _parameters(document, at="request")
    tensors = _tensors(document, lists, signature=signature, has_header=has_header)
    if lists:
        raise RequestError(f"{len(lists)} lists called data belong to no input")
    return _Plan(
        model=signature.model,
        tensors=tuple(tensors.values()),
        num_bytes=sum(tensor.num_bytes for tensor in tensors.values()),
        id=_id(document),
        batch_size=_batch_size(tensors, signature=signature),
        outputs=_wishes(document, parameters, signature=signature),
        timeout_s=_timeout_s(parameters),
    )


# --- inputs -----------------------------------------------------------------------------------------------------------


def _tensors(
    document: Mapping[str, Any], lists: dict[str, memoryview], *, signature: Signature, has_header: bool
) -> dict[str, _Tensor]:
    tensors: dict[str, _Tensor] = {}
    sizes: dict[str, int] = {}
    offset = 0
    for entry in _objects(document.get("inputs"), at="inputs"):
        spec = _spec_of(entry, signature=signature)
        if spec.name in tensors:
            raise RequestError(f"input '{spec.name}' is given twice")
        _check_datatype(entry, spec=spec)
        shape = _shape(entry, spec=spec, sizes=sizes)
        parameters = _parameters(entry, at=f"input '{spec.name}'")
        size = _binary_size(parameters, spec=spec, has_header=has_header)
        if size is None:
            tensors[spec.name] = _Tensor(spec, shape, _of_json(entry, lists, spec=spec, shape=shape))
            continue
        if "data" in entry:
            raise RequestError(f"input '{spec.name}' has both data and binary_data_size")
        _check_size(size, spec=spec, shape=shape)
        tensors[spec.name] = _Tensor(spec, shape, None, offset)
        offset += size
    if missing := [spec.name for spec in signature.inputs if spec.name not in tensors]:
        raise RequestError(
            f"expected {len(signature.inputs)} inputs but got {len(tensors)} for model '{signature.model}': "
            f"missing {', '.join(missing)}"
        )
    return tensors


def _spec_of(entry: Mapping[str, Any], *, signature: Signature) -> TensorSpec:
    name = entry.get("name")
    if not isinstance(name, str):
        raise RequestError("an input has no name")
    spec = signature.input(name)
    if spec is None:
        raise RequestError(
            f"unexpected inference input '{_cut(name)}' for model '{signature.model}'; "
            f"it takes {', '.join(spec.name for spec in signature.inputs)}"
        )
    return spec


def _check_datatype(entry: Mapping[str, Any], *, spec: TensorSpec) -> None:
    datatype, expected = entry.get("datatype"), DATATYPES[spec.dtype]
    if datatype != expected:
        found = _cut(datatype) if isinstance(datatype, str) else "missing"
        raise RequestError(f"input '{spec.name}': datatype is {found}, but the model takes {expected}")


def _shape(entry: Mapping[str, Any], *, spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape of an input. Args: sizes: of the free dimensions met so far; this input's are added."""
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise RequestError(f"input '{spec.name}': shape must be a list of whole numbers")
    fits = len(shape) == len(spec.shape) and all(
        found >= 1 if isinstance(wanted, str) else found == wanted
        for found, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size if isinstance(size, int) else -1) for size in spec.shape)
        raise RequestError(
            f"unexpected shape for input '{spec.name}'. Expected [{wanted}], got {_cut(str(shape).replace(' ', ''))}"
        )
    for found, name in zip(shape, spec.shape, strict=True):
        if isinstance(name, str) and sizes.setdefault(name, found) != found:
            raise RequestError(f"input '{spec.name}': {name} is {found}, but {sizes[name]} in another input")
    return tuple(shape)


def _binary_size(parameters: Mapping[str, Any], *, spec: TensorSpec, has_header: bool) -> int | None:
    if strange := [name for name in _SHARED_MEMORY if name in parameters]:
        raise UnsupportedError(f"input '{spec.name}': {strange[0]}: this server has no shared memory")
    if "binary_data_size" not in parameters:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise RequestError(f"input '{spec.name}': binary_data_size must be a whole number")
    if not has_header:
        raise RequestError(
            f"must specify valid 'Inference-Header-Content-Length' in request header when passing inputs in binary "
            f"data format: input '{spec.name}'"
        )
    return size


def _check_size(size: int, *, spec: TensorSpec, shape: Sequence[int]) -> None:
    expected = math.prod(shape) * spec.dtype.itemsize
    if size != expected:
        raise RequestError(
            f"unexpected total byte size {size} for input '{spec.name}', expecting {expected}: "
            f"{DATATYPES[spec.dtype]} of shape {list(shape)}"
        )


def _of_json(
    entry: Mapping[str, Any], lists: dict[str, memoryview], *, spec: TensorSpec, shape: Sequence[int]
) -> np.ndarray:
    """The values of `data`, flat or nested as the shape is; they are taken out of `lists`."""
    data = entry.get("data")
    if isinstance(data, list):
        # Its key was spelt with escapes, or holds what is no number.
        text = memoryview(orjson.dumps(data))
    elif isinstance(data, str) and data in lists:
        text = lists.pop(data)
    else:
        raise RequestError(f"input '{spec.name}': data must be a list, or its size told as binary_data_size")
    try:
        return read_values(text, dtype=spec.dtype, shape=shape)
    except ValuesError as error:
        raise RequestError(f"input '{spec.name}': data {error}") from None


def _batch_size(tensors: Mapping[str, _Tensor], *, signature: Signature) -> int:
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


# --- what is asked for ------------------------------------------------------------------------------------------------


def _wishes(
    document: Mapping[str, Any], parameters: Mapping[str, Any], *, signature: Signature
) -> tuple[OutputWish, ...]:
    are_binary = _flag(parameters, "binary_data_output", at="request", default=False)
    if not (entries := document.get("outputs")):
        if entries not in (None, []):
            raise RequestError("outputs must be a list of objects")
        return tuple(OutputWish(spec.name, are_binary) for spec in signature.outputs)
    wishes: dict[str, OutputWish] = {}
    for entry in _objects(entries, at="outputs"):
        name = entry.get("name")
        spec = signature.output(name) if isinstance(name, str) else None
        if spec is None:
            told = _cut(name) if isinstance(name, str) else "without a name"
            raise RequestError(
                f"unexpected inference output '{told}' for model '{signature.model}'; "
                f"it gives {', '.join(spec.name for spec in signature.outputs)}"
            )
        if spec.name in wishes:
            raise RequestError(f"output '{spec.name}' is asked for twice")
        wishes[spec.name] = _wish(entry, spec=spec, are_binary=are_binary)
    return tuple(wishes.values())


def _wish(entry: Mapping[str, Any], *, spec: TensorSpec, are_binary: bool) -> OutputWish:
    at = f"output '{spec.name}'"
    parameters = _parameters(entry, at=at)
    if strange := [name for name in _SHARED_MEMORY if name in parameters]:
        raise UnsupportedError(f"{at}: {strange[0]}: this server has no shared memory")
    is_binary = _flag(parameters, "binary_data", at=at, default=are_binary)
    top = parameters.get("classification", 0)
    if type(top) is not int or top < 0:
        raise RequestError(f"{at}: classification must be a whole number above 0")
    if top and (len(spec.shape) != 2 or spec.dtype.kind not in "fiu" or spec.dtype.itemsize < 4):
        raise RequestError(f"{at}: classification takes an output of one number per class, but it is {spec}")
    return OutputWish(spec.name, is_binary, top)


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us < _MAX_TIMEOUT_US:
        raise RequestError("timeout must be a whole number of microseconds")
    return timeout_us / 1e6 if timeout_us else None


def _id(document: Mapping[str, Any]) -> str | None:
    identity = document.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > _MAX_ID_LENGTH):
        raise RequestError(f"id must be a text of at most {_MAX_ID_LENGTH} characters")
    return identity or None


def _parameters(document: Mapping[str, Any], *, at: str) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(f"{at}: parameters must be an object")
    if reserved := [name for name in parameters if name.startswith("triton_")]:
        raise RequestError(f"{at}: parameter '{_cut(reserved[0])}' is reserved")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, *, at: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{at}: {name} must be true or false")
    return value


def _objects(value: Any, *, at: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise RequestError(f"{at} must be a list of objects")
    return value


def _cut(text: str) -> str:
    """A client's own words, short enough to be told again."""
    return text if len(text) <= 80 else f"{text[:80]}…"
