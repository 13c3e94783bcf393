"""Outputs requested by an inference request: tensors as JSON or as bytes, or the most likely classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.models.inputs import TensorSpec
from runtime.serving.errors import RequestError
from runtime.serving.protocol.entries import flag_of, objects_of, spec_of, tensor_parameters
from runtime.serving.protocol.signature import Signature


@dataclass(frozen=True)
class OutputWish:
    """An output that the client requested."""

    name: str
    is_binary: bool
    top: int = 0
    """Number of most likely classes to send instead of the tensor; 0 for the tensor."""


def read_wishes(
    document: Mapping[str, Any], parameters: Mapping[str, Any], *, signature: Signature
) -> tuple[OutputWish, ...]:
    are_binary = flag_of(parameters, "binary_data_output", at="request", default=False)
    if not (entries := document.get("outputs")):
        if entries not in (None, []):
            raise RequestError("outputs must be a list of objects")
        return tuple(OutputWish(spec.name, are_binary) for spec in signature.outputs)
    wishes: dict[str, OutputWish] = {}
    for entry in objects_of(entries, at="outputs"):
        spec = spec_of(entry, signature, role="output")
        if spec.name in wishes:
            raise RequestError(f"output '{spec.name}' is asked for twice")
        wishes[spec.name] = _wish(entry, spec=spec, are_binary=are_binary)
    return tuple(wishes.values())


def _wish(entry: Mapping[str, Any], *, spec: TensorSpec, are_binary: bool) -> OutputWish:
    at = f"output '{spec.name}'"
    parameters = tensor_parameters(entry, at=at)
    is_binary = flag_of(parameters, "binary_data", at=at, default=are_binary)
    top = parameters.get("classification", 0)
    if type(top) is not int or top < 0:
        raise RequestError(f"{at}: classification must be a whole number above 0")
    if top and (len(spec.shape) != 2 or spec.dtype.kind not in "fiu" or spec.dtype.itemsize < 4):
        raise RequestError(f"{at}: classification takes an output of one number per class, but it is {spec}")
    return OutputWish(spec.name, is_binary, top)
