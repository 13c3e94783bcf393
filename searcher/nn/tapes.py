"""Computations on fixed memory that are repeated with their gradients: replayed as CUDA graphs, or computed anew."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

_NUM_WARM_UPS = 3


class Tape(Protocol):
    """A computation on fixed memory, and its gradient."""

    outputs: tuple[Tensor, ...]
    """The results of `forward`."""
    gradients: tuple[Tensor, ...]
    """The results of `backward`."""

    def forward(self) -> None: ...

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """Args: gradients: of the outputs."""
        ...


class Computation(Protocol):
    """The computation that a tape repeats."""

    inputs: Sequence[Tensor]
    """The inputs that need a gradient."""
    weights: Sequence[Tensor]

    def forward(self) -> tuple[Tensor, ...]:
        """Returns the outputs, with the autograd graph for their gradient."""
        ...

    def backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the gradient of each input, then the gradients of all weights as one vector."""
        ...


Record = Callable[[Computation, Hashable], Tape]
"""Makes a tape of a computation at a place. Tapes of the same place are never in use at the same time."""


class CudaTapes:
    """Records CUDA graphs.

    Graphs of the same place share memory: a tape keeps its outputs and gradients, and frees its activations once its
    backward pass is recorded, so that the next tape uses the same memory for its own. Graphs of different places must
    not share memory: one would store its activations in memory that another freed while it was recorded, and replays
    of that other graph would overwrite them.
    """

    def __init__(self) -> None:
        self._pools: dict[Hashable, Any] = {}
        self._output_gradients: dict[Hashable, Tensor] = {}
        self._side = torch.cuda.Stream()

    def __call__(self, computation: Computation, place: Hashable) -> Tape:
        pool = self._pools.setdefault(place, torch.cuda.graph_pool_handle())
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):  # libraries choose their kernels before anything is recorded
            for _ in range(_NUM_WARM_UPS):
                outputs = computation.forward()
                computation.backward(outputs, [torch.zeros_like(output) for output in outputs])
                del outputs  # also frees the autograd graph, which belongs to this stream
        torch.cuda.current_stream().wait_stream(self._side)
        return _CudaTape(computation, pool=pool, gradient_like=lambda number, x: self._gradient(place, number, x))

    def _gradient(self, place: Hashable, number: int, output: Tensor) -> Tensor:
        """The tensor from which all tapes of a place read the gradient of output `number`; one for each layout."""
        key = (place, number, output.shape, output.stride(), output.dtype)
        if key not in self._output_gradients:
            self._output_gradients[key] = torch.zeros_like(output)
        return self._output_gradients[key]


class _CudaTape:
    def __init__(self, computation: Computation, *, pool: Any, gradient_like: Callable[[int, Tensor], Tensor]) -> None:
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # "thread_local": other threads, NCCL's watchdog above all, may use CUDA during the recording.
        with torch.cuda.graph(self._forward, pool=pool, capture_error_mode="thread_local"):
            live = computation.forward()
        self.outputs = tuple(output.detach() for output in live)
        self._output_gradients = [gradient_like(number, output) for number, output in enumerate(self.outputs)]
        with torch.cuda.graph(self._backward, pool=pool, capture_error_mode="thread_local"):
            self.gradients = computation.backward(live, self._output_gradients)

    def forward(self) -> None:
        self._forward.replay()

    def backward(self, gradients: Sequence[Tensor]) -> None:
        for mine, given in zip(self._output_gradients, gradients, strict=True):
            mine.copy_(given)
        self._backward.replay()


class EagerTape:
    """The plain twin of `_CudaTape`, for any device: computes anew at every call, into fixed memory."""

    def __init__(self, computation: Computation, place: Hashable) -> None:
        self._computation = computation
        self._live = computation.forward()
        self.outputs = tuple(output.detach().clone() for output in self._live)
        found = computation.backward(self._live, [torch.zeros_like(output) for output in self.outputs])
        self.gradients = tuple(gradient.clone() for gradient in found)

    def forward(self) -> None:
        self._live = self._computation.forward()
        for mine, output in zip(self.outputs, self._live, strict=True):
            mine.copy_(output.detach())

    def backward(self, gradients: Sequence[Tensor]) -> None:
        for mine, found in zip(self.gradients, self._computation.backward(self._live, gradients), strict=True):
            mine.copy_(found)
