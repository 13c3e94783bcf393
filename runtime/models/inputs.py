"""Inputs of a model of any origin, and random values for them.

A free first dimension of an input is its batch. Every other free dimension has a name, or is named after its position,
`images.2`, and must be given a size.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundation.allowance import usable_memory
from foundation.seeds import numpy_generator

# B batch

_DTYPES: dict[str, Any] = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "bool": np.bool_,
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_WITHOUT_NUMPY = ("bfloat16", "int4", "uint4", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
# Integers of at least this width are taken for indices, lengths or masks, for which 0 and 1 are the safest values.
_INDEX_BITS = 32


class ShapeError(ValueError):
    """Inputs cannot be made for a model."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]
    """Sizes, and names of free dimensions."""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


def inputs_of(ort: Any, *, unranked: Collection[str] = ()) -> tuple[TensorSpec, ...]:
    """The inputs of an onnxruntime session.

    Args: unranked: inputs without a stated number of dimensions, which a session reports as scalars.
    Raises: ShapeError: an input is not a tensor of numbers, or is unranked.
    """
    if open_ones := [value.name for value in ort.get_inputs() if value.name in unranked]:
        raise ShapeError(f"{open_ones[0]} has no stated number of dimensions, so no value can be made for it")
    return tuple(tensor_spec(value.name, _dtype(value.name, value.type), value.shape) for value in ort.get_inputs())


def outputs_of(ort: Any) -> tuple[TensorSpec, ...]:
    """The outputs of an onnxruntime session. Raises: ShapeError: an output is not a tensor of numbers."""
    return tuple(tensor_spec(value.name, _dtype(value.name, value.type), value.shape) for value in ort.get_outputs())


def tensor_spec(name: str, dtype: np.dtype, shape: Sequence[int | str | None]) -> TensorSpec:
    """The spec of a tensor whose free dimensions are names, None or negative, as servers report them."""
    named = (
        size if (isinstance(size, int) and size >= 0) or (isinstance(size, str) and size) else f"{name}.{axis}"
        for axis, size in enumerate(shape)
    )
    return TensorSpec(name, dtype, tuple(named))


def batch_size_of(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> int | None:
    """The fixed batch size of a model; None if the batch is free."""
    first = [spec.shape[0] for spec in specs if spec.shape]
    if any(isinstance(size, str) and size not in sizes for size in first):
        return None
    return next((sizes[size] if isinstance(size, str) else size for size in first), 1)


def random_inputs(
    specs: Sequence[TensorSpec],
    *,
    batch_size: int,
    sizes: Mapping[str, int],
    seed: int,
    limits: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """A random value for every input, the same for all models with equal inputs.

    Floats are normally distributed, integers of 8 and 16 bits span their range, wider ones are 0 or 1, which are valid
    as indices and masks.

    Args: sizes: free dimension -> its size. limits: input -> exclusive upper bound of its integers.
    Raises: ShapeError: a free dimension has no size, a size belongs to no dimension, the batch is fixed to another
        size, or the values do not fit in memory.
    """
    shapes = _shapes(specs, batch_size=batch_size, sizes=sizes)
    _check_memory(specs, shapes)
    try:
        return {
            spec.name: _random(
                spec.dtype,
                shapes[spec.name],
                numpy_generator(seed, "benchmark", spec.name, batch_size),
                limit=(limits or {}).get(spec.name),
            )
            for spec in specs
        }
    except MemoryError as error:
        raise ShapeError(f"inputs of this size cannot be made: {error}") from error


def _check_memory(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse inputs that exceed this machine's memory: Linux would grant it, then kill the process that fills it."""
    # Every size counts as at least 1: numpy limits each size, even if another one is 0.
    wanted = sum(math.prod(max(1, size) for size in shapes[spec.name]) * _bytes_to_draw(spec.dtype) for spec in specs)
    held = usable_memory() or sys.maxsize
    if wanted > held:
        gib = 2**30
        raise ShapeError(
            f"inputs of this size cannot be made: they take {-(-wanted // gib):,} GiB, and there are {held // gib:,}"
        )


def _shapes(specs: Sequence[TensorSpec], *, batch_size: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    free = {size for spec in specs for size in spec.shape if isinstance(size, str)}
    if strange := [name for name in sizes if name not in free]:
        told = f"free are {', '.join(sorted(free))}" if free else "none is free"
        raise ShapeError(f"--shape {strange[0]}: the model has no such dimension; {told}")
    fixed = batch_size_of(specs, sizes)
    if fixed not in (None, batch_size):
        raise ShapeError(f"takes batches of {fixed} only, not of {batch_size}")
    batch_names = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], str)}
    known = dict.fromkeys(map(str, batch_names), batch_size) | dict(sizes)
    if missing := [f"{name} (of {spec})" for spec in specs for name in _names(spec) if name not in known]:
        raise ShapeError(f"a free dimension needs a size, --shape NAME=SIZE: {', '.join(dict.fromkeys(missing))}")
    return {spec.name: tuple(known[s] if isinstance(s, str) else s for s in spec.shape) for spec in specs}


def _names(spec: TensorSpec) -> Iterable[str]:
    return (size for size in spec.shape if isinstance(size, str))


def _dtype(name: str, type_name: str) -> np.dtype:
    element = type_name.removeprefix("tensor(").removesuffix(")")
    if element in _WITHOUT_NUMPY:
        raise ShapeError(
            f"{name} is {type_name}, numbers that numpy does not have; give it a float input, and cast inside"
        )
    if not type_name.startswith("tensor(") or element not in _DTYPES:
        raise ShapeError(f"{name} is {type_name}; only tensors of numbers are supported")
    dtype: np.dtype = np.dtype(_DTYPES[element])
    return dtype


def _bytes_to_draw(dtype: np.dtype) -> int:
    """Bytes of memory that `_random` needs per value: most are drawn as 8-byte numbers, then converted."""
    is_drawn_as_it_is = dtype.kind in "iu" and dtype.itemsize * 8 < _INDEX_BITS
    return dtype.itemsize + (0 if is_drawn_as_it_is else 8)


def _random(
    dtype: np.dtype, shape: tuple[int, ...], generator: np.random.Generator, *, limit: int | None
) -> np.ndarray:
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if limit is not None or dtype.itemsize * 8 >= _INDEX_BITS:
        return generator.integers(0, limit or 2, shape).astype(dtype)
    bounds = np.iinfo(dtype)
    return generator.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
