"""CUDA graphs of a network's parts: recorded at their first use, and replayed whatever weights they are to have.

A step of a small network is thousands of kernels of a few microseconds, which a CPU launches more slowly than a GPU
runs them; a graph launches all kernels of a part at once. It reads and writes the same memory every time, so a part's
inputs are copied to where its graph reads them.

The operations of a supernet are alternatives, of which a pass uses one at a place: those that are built alike share a
recording, to which their weights are copied, and recordings of one place share the memory of their activations. What is
kept is bounded by the places in a network and what may stand there, however many architectures pass. A fixed network is
recorded as a whole, with its weights where they are.

`graph_operations` does it for a supernet, `GraphedNetwork` for a fixed network. What is recorded must draw, branch and
allocate the same way every time, and be run backwards before it, or another at its place, runs forwards again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from searcher.arch.document import ConfigError
from searcher.nn.banks import Alternatives
from searcher.nn.blocks import FactorizedReduction, ReluConvNorm
from searcher.nn.flat import Pieces, addresses, lay_flat, views_of
from searcher.nn.tapes import CudaTapes, Record

# Of a GPU's memory, what is left to other things than recordings.
_FREE_SHARE = 0.2


class Part:
    """A module that is to be replayed, with what does not change about it.

    Its weights may be views of any memory, and move; the fewer pieces they and their gradients lie in, the
    faster it is.

    Args: place: where in its network it is; a pass may use one part of a place only. build: the same for modules that
    differ in nothing but weights. shared: whether parts of its place and build share a recording, to which the weights
    are copied, rather than being read where they are. Gradients of such a part's weights are added to their `grad`
    directly, in memory that the part uses again at the next pass; those of another go through autograd, which has hooks
    for whoever wants to know. A shared part computes the same in training and in evaluation.
    """

    def __init__(self, module: nn.Module, *, place: Hashable, build: str = "", shared: bool = True) -> None:
        self.module = module
        self.place = place
        self.build = build
        self.shared = shared
        named = dict(module.named_parameters())
        self.names = tuple(named)
        self.weights = tuple(named.values())
        self.seen = self.weights[:1] if shared else self.weights
        """What autograd is told of: for a shared part any weight, so that there is a gradient to compute."""
        if shared:
            lay_flat(self.weights)
        self._weight_pieces, self._gradient_pieces = Pieces(), Pieces()
        self._gradient: Tensor | None = None
        self._gradient_views: list[Tensor] = []

    @property
    def size(self) -> int:
        """Numbers in all weights."""
        return sum(weight.numel() for weight in self.weights)

    def copy_weights(self, vector: Tensor) -> None:
        """Copy the weights to [size], one behind the other."""
        pieces = self._weight_pieces.of(self.weights)
        _copy(vector, pieces, self._weight_pieces.sizes)

    def add_gradient(self, vector: Tensor) -> None:
        """Add to the weights' gradients what lies in [size] as `copy_weights` copies."""
        if self._gradient is None or self._gradient.device != vector.device:
            self._gradient = torch.empty_like(vector)
            self._gradient_views = views_of(self._gradient, self.weights)
        found = [weight.grad for weight in self.weights]
        there = [gradient for gradient in found if gradient is not None]
        if not there:
            self._gradient.copy_(vector)
            for weight, view in zip(self.weights, self._gradient_views, strict=True):
                weight.grad = view
        elif len(there) == len(found):
            pieces = self._gradient_pieces.of(there)
            for piece, new in zip(pieces, vector.split(self._gradient_pieces.sizes), strict=True):
                piece.add_(new)
        else:
            for weight, new in zip(self.weights, views_of(vector, self.weights), strict=True):
                weight.grad = new.clone() if weight.grad is None else weight.grad.add_(new)


class Graphs:
    """The tapes of a network's parts, by place, build, shapes and mode.

    Args: record: makes a tape; `CudaTapes` or a twin. has_room: whether there is memory for another one; a part that
    finds none is run as it is from then on.
    """

    def __init__(self, record: Record, *, has_room: Callable[[], bool] = lambda: True) -> None:
        self._record = record
        self._has_room = has_room
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._inputs: dict[Hashable, Tensor] = {}
        self.computing = False
        """Whether what is called has to be the module itself, for a tape computes with it."""

    def __len__(self) -> int:
        """How many there are."""
        return sum(recording is not None for recording in self._recordings.values())

    @property
    def num_refused(self) -> int:
        """How many had no room."""
        return len(self._recordings) - len(self)

    def call(self, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor] = MappingProxyType({})) -> Any:
        """What `part.module(*inputs, **options)` gives, with gradients if they are on."""
        tensors = (*inputs, *options.values())
        differentiable = torch.is_grad_enabled()
        # Recorded once: with its gradient, also where a pass that needs none comes first.
        wanted = tuple([(x.requires_grad or not differentiable) and x.is_floating_point() for x in tensors])
        training = part.shared or part.module.training
        key = (part.place, part.build, training, tuple(options), _mode(), wanted, *map(_kind, tensors))
        recording = self._recordings.get(key, _MISSING)
        if recording is _MISSING or (recording is not None and recording.has_lost(part)):
            recording = self._recordings[key] = self._recorded(part, inputs, options, wanted)
        if recording is None:
            with self.as_it_is():
                return part.module(*inputs, **options)
        if not differentiable:
            return recording.packed(recording.forward(part, tensors))
        return recording.packed(_Replayed.apply(recording, part, len(tensors), *tensors, *part.seen))

    def input(self, place: Hashable, number: int, like: Tensor, wanted: bool) -> Tensor:
        """Where the recordings of a place read an input of one kind: it is theirs in common."""
        key = (place, number, wanted, _kind(like))
        if key not in self._inputs:
            self._inputs[key] = torch.empty_like(like).requires_grad_(wanted)
        return self._inputs[key]

    @contextmanager
    def as_it_is(self) -> Iterator[None]:
        """Lets the module be what is called."""
        before, self.computing = self.computing, True
        try:
            yield
        finally:
            self.computing = before

    def _recorded(
        self, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor], wanted: Sequence[bool]
    ) -> _Recording | None:
        if not self._has_room():
            return None
        with torch.inference_mode(False), torch.enable_grad():
            return _Recording(self, part, inputs, options, wanted, self._record)


_MISSING: Any = object()


class _Recording:
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
        # Not the parameters themselves, which autograd would tie to the stream of the recording.
        self._weights = [view.detach().requires_grad_() for view in views]
        self.packed: Callable[[tuple[Tensor, ...]], Any] = tuple
        self._load(part, tensors)
        with _undisturbed(part.module, part.weights[0].device):
            self._tape = record(
                _Computation(self._compute, [x for x in self._inputs if x.requires_grad], self._weights), part.place
            )

    def has_lost(self, part: Part) -> bool:
        """Whether weights that are read where they were lie elsewhere now."""
        return not part.shared and addresses(part.weights) != self._addresses

    def forward(self, part: Part, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, which the next call overwrites."""
        self._load(part, tensors)
        self._tape.forward()
        return tuple([output.detach() for output in self._tape.outputs])

    def backward(self, part: Part, gradients: Sequence[Tensor]) -> Iterator[Tensor | None]:
        """The gradients of inputs, which the next call overwrites, and of what autograd sees of the weights."""
        self._tape.backward(gradients)
        *of_inputs, of_weights = self._tape.gradients
        found = iter(of_inputs)
        for x in self._inputs:
            yield next(found).detach() if x.requires_grad else None
        if part.shared:
            part.add_gradient(of_weights)
            yield None
        else:
            yield from views_of(of_weights.clone(), part.weights)

    @torch.no_grad()
    def _load(self, part: Part, tensors: Sequence[Tensor]) -> None:
        for mine, given in zip(self._inputs, tensors, strict=True):
            mine.copy_(given)
        if self._vector is not None:
            part.copy_weights(self._vector)

    def _compute(self) -> tuple[Tensor, ...]:
        named = dict(zip(self._options, self._inputs[self._num_inputs :], strict=True))
        weights = dict(zip(self._names, self._weights, strict=True))
        with self._graphs.as_it_is(), _without_cached_casts():
            result = functional_call(self._module, weights, tuple(self._inputs[: self._num_inputs]), named)
        flat, self.packed = _unpacked(result)
        return flat


class _Computation:
    """A part's: `backward` gives the gradients of its inputs, and that of its weights as a vector."""

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
        with torch.autocast(sources[0].device.type, enabled=False):  # as a backward pass is run by itself
            found = torch.autograd.grad(live, sources, given, allow_unused=True)
        whole = [
            torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(sources, found, strict=True)
        ]
        of_inputs, of_weights = whole[: len(self.inputs)], whole[len(self.inputs) :]
        vector = of_weights[0].new_empty(sum(weight.numel() for weight in self.weights))
        torch._foreach_copy_(views_of(vector, self.weights), of_weights)
        return *of_inputs, vector


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, part: Part, num_inputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        # Behind the inputs is what autograd is told of the weights.
        ctx.recording, ctx.part = recording, part
        return recording.forward(part, tensors[:num_inputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *ctx.recording.backward(ctx.part, gradients)


# --- what is recorded -------------------------------------------------------------------------------------------------


def graph_operations(supernet: nn.Module, graphs: Graphs) -> None:
    """Let a convolutional supernet's operations, calibrations and reductions run through `graphs` from now on.

    Their norms take the statistics of the batch and nothing is dropped, so one recording serves training and scoring.

    Raises: ConfigError: the supernet has none of them.
    """
    parts = list(recordable(supernet))
    if not parts:
        raise ConfigError("CUDA graphs are for supernets whose operations keep their shapes, micro and macro")
    for part, place in parts:
        _divert(part, graphs, place=place)


def recordable(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The parts of a network worth recording, each with its place: itself, or the alternatives it is one of."""
    for child in network.children():
        if isinstance(child, Alternatives):
            # What has no weights is a single kernel.
            yield from ((module, child) for module in child.values() if any(True for _ in module.parameters()))
        elif isinstance(child, ReluConvNorm | FactorizedReduction):
            yield child, child
        else:
            yield from recordable(child)


def _divert(module: nn.Module, graphs: Graphs, *, place: nn.Module) -> None:
    part, forward = Part(module, place=place, build=repr(module)), module.forward

    def through_graphs(x: Tensor) -> Tensor:
        return forward(x) if graphs.computing else graphs.call(part, [x])

    module.forward = through_graphs


class GraphedNetwork(nn.Module):
    """A fixed network whose training passes are replayed; it shares the network's weights, and does as it does.

    Options that are numbers, and not zero, change from pass to pass without a new recording. A pass that lacks an input
    is not recorded, nor is one without gradients.
    """

    def __init__(self, network: nn.Module, graphs: Graphs) -> None:
        super().__init__()
        self.network = network
        self._part = Part(network, place=network, shared=False)
        self._graphs = graphs

    def forward(self, *inputs: Tensor | None, **options: Any) -> Any:
        given = [x for x in inputs if x is not None]
        if len(given) < len(inputs) or not torch.is_grad_enabled():
            return self.network(*inputs, **options)
        numbers = {name: torch.full((), value, device=given[0].device) for name, value in options.items() if value != 0}
        return self._graphs.call(self._part, given, numbers)


# --- how --------------------------------------------------------------------------------------------------------------


def cuda_graphs(device: torch.device) -> Graphs:
    """An empty collection on a device. Raises: ConfigError: it is no CUDA device."""
    if device.type != "cuda":
        raise ConfigError(f"CUDA graphs need a CUDA device, but this is to run on the {device.type}")
    return Graphs(CudaTapes(), has_room=lambda: _has_room(device))


def _has_room(device: torch.device) -> bool:
    free, total = torch.cuda.mem_get_info(device)
    return free > _FREE_SHARE * total


def _copy(vector: Tensor, pieces: Sequence[Tensor], sizes: list[int]) -> None:
    """Put pieces one behind the other."""
    if len(pieces) == 1:
        vector.copy_(pieces[0])
        return
    for mine, piece in zip(vector.split(sizes), pieces, strict=True):
        mine.copy_(piece)


@contextmanager
def _undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Leaves the module's buffers and the device's random numbers as they were."""
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
    """A cast that autocast remembers from elsewhere would not be recorded."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _mode() -> Hashable:
    """What a computation depends on beside its inputs."""
    autocast = [torch.get_autocast_dtype(kind) for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)]
    return torch.backends.cudnn.allow_tf32, tuple(autocast)


def _kind(x: Tensor) -> Hashable:
    return x.shape, x.stride(), x.dtype


def _unpacked(result: Any) -> tuple[tuple[Tensor, ...], Callable[[tuple[Tensor, ...]], Any]]:
    """The tensors of a result, a tensor or a tuple that may hold None, and what makes such a result of such tensors."""
    if isinstance(result, Tensor):
        return (result,), lambda tensors: tensors[0]
    make = getattr(type(result), "_make", tuple)  # named tuples have it
    there = [value is not None for value in result]

    def packed(tensors: tuple[Tensor, ...]) -> Any:
        left = iter(tensors)
        return make([next(left) if is_there else None for is_there in there])

    return tuple(value for value in result if value is not None), packed
