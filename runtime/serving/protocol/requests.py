"""Inference requests of the Open Inference Protocol, version 2 over REST, read from their bytes.

With the binary tensor extension: first `Inference-Header-Content-Length` bytes of JSON, then the tensors that have a
`binary_data_size`, in the order of `inputs`. Knows nothing of HTTP except that number, and of a model only its
signature.

Source: kserve/open-inference-protocol, inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md, whose error messages are kept where clients may rely on them.
"""

# B batch

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from runtime.models.protocol_names import HEADER_LENGTH
from runtime.serving.errors import RequestError
from runtime.serving.protocol.entries import parameters_of
from runtime.serving.protocol.json_objects import parse_tensors
from runtime.serving.protocol.request_inputs import Tensor, batch_size_of, check_size, read_inputs
from runtime.serving.protocol.request_outputs import OutputWish, read_wishes
from runtime.serving.protocol.signature import Signature

_MAX_ID_LENGTH = 1024
_MAX_TIMEOUT_US = 2**62


class InferRequest(NamedTuple):
    """A request, checked against the model's signature."""

    id: str | None
    feed: Mapping[str, np.ndarray]
    """Input -> [B, …]."""
    batch_size: int
    outputs: tuple[OutputWish, ...]
    timeout_s: float | None
    """How long it may wait in the queue."""


class InferReader:
    """Reads requests with one value of `Inference-Header-Content-Length`, as a client sends repeatedly.

    If all tensors are sent as bytes, the JSON is usually that of the previous request, and is then not parsed again.
    """

    def __init__(self, header_length: str | None) -> None:
        """Args: header_length: None if the header is absent."""
        self._header_length = header_length
        self._known: tuple[Signature, bytes, _Plan] | None = None

    def read(self, body: bytes, signature: Signature) -> InferRequest:
        """Read an inference request.

        Args: body: decompressed.
        Raises: RequestError, TooLargeError, UnsupportedError: this model cannot answer such a request.
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
    """The number of JSON bytes in a body."""
    if value is None:
        return num_bytes
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise RequestError(f"{HEADER_LENGTH} is {value[:40]!r}, but must be a whole number")
    if int(value) > num_bytes:
        raise RequestError(f"{HEADER_LENGTH} is {value}, but the request's body has {num_bytes} bytes only")
    return int(value)


def _raw_request(body: bytes, *, signature: Signature) -> InferRequest:
    """The request of a body without JSON: one row of the model's only input."""
    if len(signature.inputs) != 1:
        raise RequestError(f"a raw binary request takes a model of one input, but '{signature.model}' has more")
    spec = signature.inputs[0]
    shape = (1, *spec.shape[1:])
    if not all(isinstance(size, int) for size in shape):
        raise RequestError(f"a raw binary request takes an input of known shape, but {spec} is not")
    tensor = Tensor(spec, tuple(map(int, shape)), None)
    check_size(len(body), spec=spec, shape=tensor.shape)
    feed = {spec.name: tensor.of(memoryview(body))}
    wishes = tuple(OutputWish(output.name, is_binary=True) for output in signature.outputs)
    return InferRequest(id=None, feed=feed, batch_size=1, outputs=wishes, timeout_s=None)


@dataclass(frozen=True)
class _Plan:
    """A request except for the bytes that follow its JSON."""

    model: str
    tensors: tuple[Tensor, ...]
    num_bytes: int
    """Expected after the JSON."""
    id: str | None
    batch_size: int
    outputs: tuple[OutputWish, ...]
    timeout_s: float | None

    def request(self, tensors: memoryview) -> InferRequest:
        """Raises: RequestError: the number of bytes after the JSON is not the expected one."""
        if (excess := len(tensors) - self.num_bytes) > 0:
            raise RequestError(f"unexpected additional input data for model '{self.model}': {excess} bytes")
        if excess < 0:
            short = next(tensor for tensor in self.tensors if tensor.start + tensor.num_bytes > len(tensors))
            missing = min(short.num_bytes, short.start + short.num_bytes - len(tensors))
            raise RequestError(f"unexpected size for input '{short.spec.name}', expecting {missing} additional bytes")
        feed = {tensor.spec.name: tensor.of(tensors) for tensor in self.tensors}
        return InferRequest(self.id, feed, self.batch_size, self.outputs, self.timeout_s)


def _plan(
    document: Mapping[str, Any], lists: dict[str, memoryview], *, signature: Signature, has_header: bool
) -> _Plan:
    """Args: lists: placeholder in the document -> the list named `data`; the entries of inputs are removed from it."""
    parameters = parameters_of(document, at="request")
    tensors = read_inputs(document, lists, signature=signature, has_header=has_header)
    if lists:
        raise RequestError(f"{len(lists)} lists called data belong to no input")
    return _Plan(
        model=signature.model,
        tensors=tuple(tensors.values()),
        num_bytes=sum(tensor.num_bytes for tensor in tensors.values()),
        id=_id(document),
        batch_size=batch_size_of(tensors, signature=signature),
        outputs=read_wishes(document, parameters, signature=signature),
        timeout_s=_timeout_s(parameters),
    )


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
