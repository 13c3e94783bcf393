"""Inputs and outputs of a served model, in the protocol's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runtime.models.inputs import TensorSpec, inputs_of, outputs_of
from runtime.models.protocol_names import DATATYPES


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model; the first dimension of each is the batch."""

    model: str
    """Its name, for error messages."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int

    @classmethod
    def of(cls, ort: Any, *, model: str, max_batch_size: int) -> Signature:
        """The signature of an onnxruntime session."""
        return cls(model, inputs_of(ort), outputs_of(ort), max_batch_size)

    @cached_property
    def free_inputs(self) -> tuple[str, ...]:
        """Names of inputs with a free dimension other than the batch."""
        return tuple(spec.name for spec in self.inputs if any(isinstance(size, str) for size in spec.shape[1:]))


def described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """The tensors as in the protocol's metadata: -1 for a free dimension."""
    return [
        {
            "name": spec.name,
            "datatype": DATATYPES[spec.dtype],
            "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
        }
        for spec in specs
    ]


def configured(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """The tensors as in Triton's model configuration: without the batch.

    Triton has no tensors of one value per row: clients send and receive an additional dimension of size 1.
    """
    return [
        {
            "name": spec.name,
            "data_type": f"TYPE_{DATATYPES[spec.dtype]}",
            **(
                {"dims": [size if isinstance(size, int) else -1 for size in spec.shape[1:]]}
                if len(spec.shape) > 1
                else {"dims": [1], "reshape": {"shape": []}}
            ),
        }
        for spec in specs
    ]
