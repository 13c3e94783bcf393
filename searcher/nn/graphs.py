"""CUDA graphs of a network's parts: recorded at their first use, then replayed with any weights.

A step of a small network is thousands of kernels of a few microseconds, which a CPU launches more slowly than a GPU
runs them; a graph launches all kernels of a part at once. It reads and writes the same memory every time, so a part's
inputs are copied to the memory that its graph reads.

The operations of a supernet are alternatives, of which a pass uses one at each place. Operations of the same build
share a recording, to which their weights are copied, and recordings of the same place share the memory of their
activations. So the places and the operations possible there bound the number of recordings, however many architectures
are run. A fixed network is recorded as a whole, and its weights are read in place.

`graph_operations` records a supernet, `GraphedNetwork` a fixed network. A recorded part must draw, branch and allocate
the same way every time, and its backward pass must run before the next forward pass of any part at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from foundation.document import ConfigError
from searcher.nn.banks import Alternatives
from searcher.nn.blocks import AuxiliaryHead, ConcatProjection, FactorizedReduction, ReluConvNorm, Stem
from searcher.nn.flat import lay_flat
from searcher.nn.graph_parts import Part
from searcher.nn.recordings import Recording, Replayed
from searcher.nn.tapes import CudaTapes, Record

# The share of GPU memory left for everything other than recordings.
_FREE_SHARE = 0.2
_MISSING: Any = object()


class Graphs:
    """The recordings of a network's parts, by place, build, shapes and mode.

    Args: record: makes a tape; `CudaTapes` or a twin. has_room: whether there is memory for another recording; if not,
    the part runs unrecorded from then on.
    """

    def __init__(self, record: Record, *, has_room: Callable[[], bool] = lambda: True) -> None:
        self._record = record
        self._has_room = has_room
        self._recordings: dict[Hashable, Recording | None] = {}
        self._inputs: dict[Hashable, Tensor] = {}
        self.computing = False
        """Whether calls must run the module itself, as while a tape records it."""

    def __len__(self) -> int:
        """The number of recordings."""
        return sum(recording is not None for recording in self._recordings.values())

    @property
    def num_refused(self) -> int:
        """The number of recordings for which there was no memory."""
        return len(self._recordings) - len(self)

    def call(self, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor] = MappingProxyType({})) -> Any:
        """Returns the result of `part.module(*inputs, **options)`, with gradients if they are enabled."""
        tensors = (*inputs, *options.values())
        differentiable = torch.is_grad_enabled()
        # Recorded once, so always with its gradient, even if the first pass needs none.
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
        return recording.packed(Replayed.apply(recording, part, len(tensors), *tensors, *part.seen))

    def input(self, place: Hashable, number: int, like: Tensor, wanted: bool) -> Tensor:
        """The tensor from which all recordings of a place read input `number`; there is one for each layout."""
        key = (place, number, wanted, _kind(like))
        if key not in self._inputs:
            self._inputs[key] = torch.empty_like(like).requires_grad_(wanted)
        return self._inputs[key]

    @contextmanager
    def as_it_is(self) -> Iterator[None]:
        """Lets calls run the module itself."""
        before, self.computing = self.computing, True
        try:
            yield
        finally:
            self.computing = before

    def _recorded(
        self, part: Part, inputs: Sequence[Tensor], options: Mapping[str, Tensor], wanted: Sequence[bool]
    ) -> Recording | None:
        if not self._has_room():
            return None
        with torch.inference_mode(False), torch.enable_grad():
            return Recording(self, part, inputs, options, wanted, self._record)


def graph_operations(supernet: nn.Module, graphs: Graphs) -> None:
    """Let all parts of a convolutional supernet that have weights, except its classifier, run through `graphs`.

    Their norms use batch statistics and there is no dropout, so one recording serves training and scoring.

    Raises: ConfigError: the supernet has no alternative operations.
    """
    if not any(isinstance(module, Alternatives) for module in supernet.modules()):
        raise ConfigError("CUDA graphs are for supernets whose operations keep their shapes, micro and macro")
    for part, place in recordable(supernet):
        _divert(part, graphs, place=place)
    for module in supernet.modules():
        if isinstance(module, ConcatProjection):
            _divert_projection(module, graphs)


def recordable(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The parts of a network worth recording, each with its place: itself, or the `Alternatives` that contain it."""
    for child in network.children():
        if isinstance(child, Alternatives):
            # A module without weights is a single kernel, so a graph gains nothing.
            yield from ((module, child) for module in child.values() if any(True for _ in module.parameters()))
        elif isinstance(child, ReluConvNorm | FactorizedReduction | Stem | AuxiliaryHead):
            yield child, child
        else:
            yield from recordable(child)


def _divert(module: nn.Module, graphs: Graphs, *, place: nn.Module) -> None:
    part, forward = Part(module, place=place, build=repr(module)), module.forward

    def through_graphs(x: Tensor) -> Tensor:
        return forward(x) if graphs.computing else graphs.call(part, [x])

    module.forward = through_graphs


def _divert_projection(module: ConcatProjection, graphs: Graphs) -> None:
    """There is one recording for each number of sources, to which the weights of the sources used are copied."""
    forward, parts = module.forward, dict[tuple[int, ...], Part]()
    lay_flat(tuple(module.parameters()))  # otherwise each part would move its own weights, during a pass

    def through_graphs(tensors: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
        if graphs.computing:
            return forward(tensors, sources)
        key = tuple(sources)
        if key not in parts:
            parts[key] = Part(module.of(sources), place=module, build=str(len(key)))
        return graphs.call(parts[key], tensors)

    module.forward = through_graphs  # type: ignore[method-assign]


class GraphedNetwork(nn.Module):
    """A fixed network whose training passes are replayed; it shares the network's weights and computes the same.

    Options must be numbers; nonzero values may change from pass to pass without a new recording. A pass runs unrecorded
    if an input is None or gradients are disabled.
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


def cuda_graphs(device: torch.device) -> Graphs:
    """An empty `Graphs` for a device. Raises: ConfigError: it is not a CUDA device."""
    if device.type != "cuda":
        raise ConfigError(f"CUDA graphs need a CUDA device, but this is to run on the {device.type}")
    return Graphs(CudaTapes(), has_room=lambda: _has_room(device))


def _has_room(device: torch.device) -> bool:
    free, total = torch.cuda.mem_get_info(device)
    return free > _FREE_SHARE * total


def _mode() -> Hashable:
    """The global settings that a computation depends on."""
    autocast = [torch.get_autocast_dtype(kind) for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)]
    return torch.backends.cudnn.allow_tf32, tuple(autocast)


def _kind(x: Tensor) -> Hashable:
    return x.shape, x.stride(), x.dtype
