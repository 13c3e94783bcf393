"""CUDA graphs of a network's parts: recorded at their first use, and replayed whatever weights they are to have.

A step of a small network is thousands of kernels of a few microseconds, which a processor starts more slowly than a
card runs them; a graph starts all kernels of a part at once. It reads and writes the same memory every time, so inputs
and weights are copied to where it looks for them, and alternatives that are built alike, of which a pass uses one, are
replays of one graph: what is kept is bounded by the places in a network and what may stand there, however many
architectures pass.

`graph_operations` does it for a supernet, `GraphedNetwork` for a fixed network as a whole. What is recorded must draw,
branch and allocate the same way every time, and be run backwards before it runs forwards again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from searcher.arch.document import ConfigError
from searcher.nn.banks import Alternatives
from searcher.nn.blocks import FactorizedReduction, ReluConvNorm

_NUM_WARM_UPS = 3


class Tape(Protocol):
    """A computation over memory that stays where it is, and its gradient."""

    outputs: tuple[Tensor, ...]
    """What `forward` leaves behind."""
    gradients: tuple[Tensor | None, ...]
    """What `backward` leaves behind: of every source, None where it has none."""

    def forward(self) -> None: ...

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """gradients: of the outputs."""
        ...


Compute = Callable[[], tuple[Tensor, ...]]
Record = Callable[[Compute, Sequence[Tensor], Hashable], Tape]
"""From a computation, the sources it is to be differentiated by, and its place, to a tape. Without sources it has no
gradient. Tapes of one place are never in use at the same time."""


class Part:
    """A module that is to be replayed, with what does not change about it.

    Args: place: where in its network it is; a pass may use one part of a place only. build: the same for modules that
    differ in nothing but weights.
    """

    def __init__(self, module: nn.Module, *, place: Hashable, build: str = "") -> None:
        self.module = module
        self.place = place
        self.build = build
        named = dict(module.named_parameters())
        self.names = tuple(named)
        self.weights = tuple(named.values())
        self.sizes = [weight.numel() for weight in self.weights]
        self.layouts = [_is_channels_last(weight) for weight in self.weights]

    def flat(self) -> list[Tensor]:
        """Each weight as it lies in memory: [n]."""
        return [
            (weight.permute(0, 2, 3, 1) if is_channels_last else weight).reshape(-1)
            for weight, is_channels_last in zip(self.weights, self.layouts, strict=True)
        ]

    def shaped(self, numbers: Tensor) -> list[Tensor]:
        """Views of weights, or of their gradients, that lie one behind the other as `flat` gives them: [sum of n]."""
        pieces = zip(numbers.split(self.sizes), self.weights, self.layouts, strict=True)
        return [_shaped(piece, weight.shape, is_channels_last) for piece, weight, is_channels_last in pieces]


class Graphs:
    """The tapes of a network's parts, by place, build, shapes and mode. record: makes a tape; `CudaTapes` or a twin."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._recordings: dict[Hashable, _Recording] = {}
        self.computing = False
        """Whether a tape is computing, so that what it computes with must be the module itself."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._recordings)

    def call(self, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor] = MappingProxyType({})) -> Any:
        """What `part.module(*inputs, **options)` gives, with gradients if they are on."""
        tensors = (*inputs, *options.values())
        key = (part.place, part.build, part.module.training, tuple(options), _mode(), *map(_kind, tensors))
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = _Recording(self, part, inputs, options, self._record)
        if not torch.is_grad_enabled():
            return recording.packed(recording.forward(part, tensors))
        return recording.packed(_Replayed.apply(recording, part, len(tensors), *tensors, *part.weights))


class _Recording:
    """A tape with the memory that it reads."""

    def __init__(
        self, graphs: Graphs, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor], record: Record
    ) -> None:
        differentiable = torch.is_grad_enabled()
        tensors = (*inputs, *options.values())
        self._inputs = [torch.empty_like(x).requires_grad_(differentiable and x.requires_grad) for x in tensors]
        self._weights = torch.empty(sum(part.sizes), device=tensors[0].device).requires_grad_(differentiable)
        self.packed: Callable[[tuple[Tensor, ...]], Any] = tuple
        self._load(part, tensors)

        def compute() -> tuple[Tensor, ...]:
            weights = dict(zip(part.names, part.shaped(self._weights), strict=True))
            named = dict(zip(options, self._inputs[len(inputs) :], strict=True))
            graphs.computing = True
            try:
                with _without_cached_casts():
                    result = functional_call(part.module, weights, tuple(self._inputs[: len(inputs)]), named)
            finally:
                graphs.computing = False
            flat, self.packed = _unpacked(result)
            return flat

        sources = [x for x in [*self._inputs, self._weights] if x.requires_grad]
        with _undisturbed(part.module, self._weights.device):
            self._tape = record(compute, sources, part.place)

    def forward(self, part: Part, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, which the next call overwrites."""
        self._load(part, tensors)
        self._tape.forward()
        return tuple(output.detach() for output in self._tape.outputs)

    def backward(self, part: Part, gradients: Sequence[Tensor]) -> Iterator[Tensor | None]:
        """The gradients of inputs, which the next call overwrites, and of weights, which are the caller's."""
        self._tape.backward(gradients)
        found = iter(self._tape.gradients)
        for x in self._inputs:
            gradient = next(found) if x.requires_grad else None
            yield None if gradient is None else gradient.detach()
        whole = next(found)
        assert whole is not None
        yield from part.shaped(whole.clone())

    @torch.no_grad()
    def _load(self, part: Part, tensors: Sequence[Tensor]) -> None:
        for mine, given in zip(self._inputs, tensors, strict=True):
            mine.copy_(given)
        torch.cat(part.flat(), out=self._weights)


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, part: Part, num_inputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        # The weights behind the inputs are the part's, and here for autograd to see.
        ctx.recording, ctx.part = recording, part
        return recording.forward(part, tensors[:num_inputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *ctx.recording.backward(ctx.part, gradients)


# --- what is recorded -------------------------------------------------------------------------------------------------


def graph_operations(supernet: nn.Module, graphs: Graphs) -> None:
    """Let a convolutional supernet's operations, calibrations and reductions run through `graphs` from now on.

    Raises: ConfigError: the supernet has none of them.
    """
    parts = list(recordable(supernet))
    if not parts:
        raise ConfigError("CUDA graphs are for convolutional supernets; one of text has nothing to record")
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
        self._part = Part(network, place=network)
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
    return Graphs(CudaTapes())


class CudaTapes:
    """Records CUDA graphs.

    Those of a place share memory. Those of two places must not: what one frees while it is recorded the other would
    keep its activations in, and the first one's replays overwrite them.
    """

    def __init__(self) -> None:
        self._pools: dict[Hashable, Any] = {}
        self._side = torch.cuda.Stream()

    def __call__(self, compute: Compute, sources: Sequence[Tensor], place: Hashable) -> Tape:
        pool = self._pools.setdefault(place, torch.cuda.graph_pool_handle())
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):  # libraries choose their kernels before anything is recorded
            for _ in range(_NUM_WARM_UPS):
                outputs = compute()
                _gradients(outputs, sources, [torch.zeros_like(output) for output in outputs])
                del outputs  # and the graph of autograd, which belongs to this stream
        torch.cuda.current_stream().wait_stream(self._side)
        return _CudaTape(compute, sources, pool=pool)


class _CudaTape:
    def __init__(self, compute: Compute, sources: Sequence[Tensor], *, pool: Any) -> None:
        self._forward = torch.cuda.CUDAGraph()
        # Other threads, NCCL's watchdog above all, may go on meanwhile.
        with torch.cuda.graph(self._forward, pool=pool, capture_error_mode="thread_local"):
            self._live = compute()  # with what it keeps for the gradient, which must stay where it is
        self.outputs = tuple(output.detach() for output in self._live)
        self.gradients: tuple[Tensor | None, ...] = ()
        if sources:
            self._output_gradients = [torch.zeros_like(output) for output in self.outputs]
            self._backward = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._backward, pool=pool, capture_error_mode="thread_local"):
                self.gradients = _gradients(self._live, sources, self._output_gradients)

    def forward(self) -> None:
        self._forward.replay()

    def backward(self, gradients: Sequence[Tensor]) -> None:
        for mine, given in zip(self._output_gradients, gradients, strict=True):
            mine.copy_(given)
        self._backward.replay()


class EagerTape:
    """The plain twin, for any device: computes anew at every call, into memory that stays where it is."""

    def __init__(self, compute: Compute, sources: Sequence[Tensor], place: Hashable) -> None:
        self._compute, self._sources = compute, sources
        self._live = compute()
        self.outputs = tuple(output.detach().clone() for output in self._live)
        self.gradients: tuple[Tensor | None, ...] = tuple(torch.zeros_like(source) for source in sources)

    def forward(self) -> None:
        with torch.set_grad_enabled(bool(self._sources)):
            self._live = self._compute()
        for mine, output in zip(self.outputs, self._live, strict=True):
            mine.copy_(output.detach())

    def backward(self, gradients: Sequence[Tensor]) -> None:
        for mine, found in zip(self.gradients, _gradients(self._live, self._sources, gradients), strict=True):
            if mine is not None:
                mine.copy_(torch.zeros_like(mine) if found is None else found)


def _gradients(
    outputs: Sequence[Tensor], sources: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Of the sources, from those of the outputs; what the outputs need of the tape is kept."""
    if not sources:
        return ()
    pairs = [(output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if output.requires_grad]
    live, given = zip(*pairs, strict=True)
    with torch.autocast(sources[0].device.type, enabled=False):  # as a backward pass is run by itself
        return torch.autograd.grad(live, sources, given, retain_graph=True, allow_unused=True)


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
    tf32 = torch.backends.cudnn.allow_tf32
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), tf32, tuple(autocast)


def _kind(x: Tensor) -> Hashable:
    return x.shape, x.stride(), x.dtype, x.requires_grad


def _is_channels_last(weight: Tensor) -> bool:
    """By its strides to the letter, for libraries choose by them even where they do not matter."""
    if weight.ndim != 4:
        return False
    _, columns, height, width = weight.shape
    return weight.stride() == (height * width * columns, 1, width * columns, columns)


def _shaped(numbers: Tensor, shape: torch.Size, is_channels_last: bool) -> Tensor:
    if not is_channels_last:
        return numbers.view(shape)
    rows, columns, height, width = shape
    return numbers.view(rows, height, width, columns).permute(0, 3, 1, 2)


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
