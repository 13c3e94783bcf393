"""The parts of a protocol document: lists of objects with parameters. Every error states its position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from runtime.models.inputs import TensorSpec
from runtime.serving.errors import RequestError, UnsupportedError
from runtime.serving.protocol.signature import Signature

_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


def parameters_of(document: Mapping[str, Any], *, at: str) -> Mapping[str, Any]:
    """Its `parameters`, empty if there are none. Raises: RequestError: not an object, or a name is reserved."""
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(f"{at}: parameters must be an object")
    if reserved := [name for name in parameters if name.startswith("triton_")]:
        raise RequestError(f"{at}: parameter '{cut(reserved[0])}' is reserved")
    return parameters


def tensor_parameters(entry: Mapping[str, Any], *, at: str) -> Mapping[str, Any]:
    """The parameters of an input or an output. Raises: RequestError. UnsupportedError: it is in shared memory."""
    parameters = parameters_of(entry, at=at)
    if strange := [name for name in _SHARED_MEMORY if name in parameters]:
        raise UnsupportedError(f"{at}: {strange[0]}: this server has no shared memory")
    return parameters


def flag_of(parameters: Mapping[str, Any], name: str, *, at: str, default: bool) -> bool:
    """A parameter that is true or false. Raises: RequestError: it is something else."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{at}: {name} must be true or false")
    return value


def objects_of(value: Any, *, at: str) -> list[dict[str, Any]]:
    """A list of at least one object. Raises: RequestError: it is something else."""
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise RequestError(f"{at} must be a list of objects")
    return value


def spec_of(entry: Mapping[str, Any], signature: Signature, *, role: Literal["input", "output"]) -> TensorSpec:
    """The model's input or output named by an entry. Raises: RequestError: there is none with that name."""
    name = entry.get("name")
    if not isinstance(name, str):
        raise RequestError(f"an {role} has no name")
    specs, has = (signature.inputs, "takes") if role == "input" else (signature.outputs, "gives")
    if (spec := next((spec for spec in specs if spec.name == name), None)) is None:
        names = ", ".join(spec.name for spec in specs)
        raise RequestError(f"unexpected inference {role} '{cut(name)}' for model '{signature.model}'; it {has} {names}")
    return spec


def cut(text: str) -> str:
    """A client's text, shortened for a message."""
    return text if len(text) <= 80 else f"{text[:80]}…"
