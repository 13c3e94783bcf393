"""One recording: a tape, the memory that it reads, and the autograd function that replays it.

Knows nothing of networks or other recordings; `graphs.py` keeps the recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from searcher.nn.flat import addresses, views_of
from searcher.nn.graph_parts import Part
from searcher.nn.tapes import Record

if TYPE_CHECKING:
    from searcher.nn.graphs import Graphs


class Recording:
    """A tape with the memory that it reads."""

    def __init__(
        self,
        graphs: Graphs,
        part: Part,
        inputs: Sequence[Tensor],
        options: Mapping[str, Tensor],
        wanted: Sequence[bool],
        record: Record,
    ) -> None:
        tensors = (*inputs, *options.values())
        self._graphs, self._module, self._names = graphs, part.module, part.names
        self._num_inputs, self._options = len(inputs), tuple(options)
        self._inputs = [graphs.input(part.place, i, x, w) for i, (x, w) in enumerate(zip(tensors, wanted, strict=True))]
        self._addresses = () if part.shared else addresses(part.weights)
        self._vector = part.weights[0].new_empty(part.size) if part.shared else None
        views = part.weights if self._vector is None else views_of(self._vector, part.weights)
        # Detached, because autograd would tie the parameters themselves to the recording's stream.
        self._weights = [view.detach().requires_grad_() for view in views]
        self.packed: Callable[[tuple[Tensor, ...]], Any] = tuple
        with torch.no_grad():
            self._load(part, tensors)
        with _undisturbed(part.module, part.weights[0].device):
            self._tape = record(
                _Computation(self._compute, [x for x in self._inputs if x.requires_grad], self._weights), part.place
            )
        self._gradient_views = views_of(self._tape.gradients[-1], part.weights)
        self._borrower: Part | None = None  # the part whose gradients still lie in the tape's memory

    def has_lost(self, part: Part) -> bool:
        """Whether weights that are read in place have moved since the recording."""
        return not part.shared and addresses(part.weights) != self._addresses

    def forward(self, part: Part, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs; the next call overwrites them."""
        self._load(part, tensors)
        self._tape.forward()
        return tuple([output.detach() for output in self._tape.outputs])

    def backward(self, part: Part, gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """Returns the gradients of the inputs, which the next call overwrites, and of the weights in `part.seen`."""
        if self._borrower is not None:  # copies nothing if an optimiser has used and dropped the gradients
            self._borrower.keep_gradient(self._tape.gradients[-1], self._gradient_views)
            self._borrower = None
        self._tape.backward(gradients)
        *of_inputs, of_weights = self._tape.gradients
        # The tape's own tensors: autograd keeps a tensor, or adds to it in place, only if nothing else references it.
        found = iter(of_inputs)
        of_tensors = [next(found) if x.requires_grad else None for x in self._inputs]
        if not part.shared:
            return [*of_tensors, *views_of(of_weights.clone(), part.weights)]
        if part.add_gradient(of_weights, self._gradient_views):
            self._borrower = part
        return [*of_tensors, None]

    def _load(self, part: Part, tensors: Sequence[Tensor]) -> None:
        memory, given = [*self._inputs], [*tensors]
        if self._vector is not None:
            pieces = part.pieces()
            memory += [self._vector] if len(pieces) == 1 else self._vector.split([piece.numel() for piece in pieces])
            given += pieces
        torch._foreach_copy_(memory, given)  # one launch if all have the same dtype

    def _compute(self) -> tuple[Tensor, ...]:
        named = dict(zip(self._options, self._inputs[self._num_inputs :], strict=True))
        weights = dict(zip(self._names, self._weights, strict=True))
        with self._graphs.as_it_is(), _without_cached_casts():
            result = functional_call(self._module, weights, tuple(self._inputs[: self._num_inputs]), named)
        flat, self.packed = _unpacked(result)
        return flat


class _Computation:
    """A part's computation: `backward` returns the gradients of its inputs, then that of its weights as a vector."""

    def __init__(
        self, compute: Callable[[], tuple[Tensor, ...]], inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> None:
        self._compute, self.inputs, self.weights = compute, inputs, weights

    def forward(self) -> tuple[Tensor, ...]:
        with torch.inference_mode(False), torch.enable_grad():
            return self._compute()

    def backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pairs = [
            (output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if output.requires_grad
        ]
        live, given = zip(*pairs, strict=True)
        sources = [*self.inputs, *self.weights]
        with torch.autocast(sources[0].device.type, enabled=False):  # a normal backward pass runs outside autocast, too
            found = torch.autograd.grad(live, sources, given, allow_unused=True)
        whole = [
            torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(sources, found, strict=True)
        ]
        of_inputs, of_weights = whole[: len(self.inputs)], whole[len(self.inputs) :]
        vector = of_weights[0].new_empty(sum(weight.numel() for weight in self.weights))
        torch._foreach_copy_(views_of(vector, self.weights), of_weights)
        return *of_inputs, vector


class Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: Recording, part: Part, num_inputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        # `tensors` are the inputs, then the weights that autograd sees.
        ctx.recording, ctx.part = recording, part
        return recording.forward(part, tensors[:num_inputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *ctx.recording.backward(ctx.part, gradients)


@contextmanager
def _undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restores the module's buffers and the device's random state at the end."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)


@contextmanager
def _without_cached_casts() -> Iterator[None]:
    """Turns off autocast's cache: a cast cached before the recording would not be recorded."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _unpacked(result: Any) -> tuple[tuple[Tensor, ...], Callable[[tuple[Tensor, ...]], Any]]:
    """The tensors of a result, a tensor or a tuple that may hold None, and a function that packs tensors like it."""
    if isinstance(result, Tensor):
        return (result,), lambda tensors: tensors[0]
    make = getattr(type(result), "_make", tuple)  # named tuples have it
    there = [value is not None for value in result]

    def packed(tensors: tuple[Tensor, ...]) -> Any:
        left = iter(tensors)
        return make([next(left) if is_there else None for is_there in there])

    return tuple(value for value in result if value is not None), packed
