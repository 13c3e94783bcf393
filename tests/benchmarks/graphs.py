"""`make bench ONLY=graphs`: what a replay and a step cost on the host, and the memory of recordings."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor, nn

from searcher.nn.build import build_supernet
from searcher.nn.graph_parts import Part
from searcher.nn.graphs import Graphs, graph_operations
from searcher.nn.kernels.norm import batch_norm
from searcher.nn.operations import SepConv
from searcher.nn.tapes import Computation
from searcher.presets.catalog import search_preset
from searcher.training.search_config import SearchConfig
from tests.benchmarks import graph_step
from tests.benchmarks.graph_step import NoTape

_ROUNDS, _CALLS = 40, 200
# Architectures in a row that bring nothing new.
_QUIET = 60


def host_cost() -> tuple[float, float]:
    """µs of a forward and of a backward pass of a separable convolution of 20 channels, medians over rounds."""
    module = SepConv(20, stride=1, norm=batch_norm(running_statistics=False), kernel_size=3)
    module = module.to(memory_format=torch.channels_last)
    graphs, part = Graphs(NoTape), Part(module, place="here")
    x = torch.randn(1, 20, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    grad = torch.ones(1, 20, 2, 2)
    forward, backward = [], []
    for _ in range(_ROUNDS):
        started = time.process_time()
        outputs = [graphs.call(part, [x]) for _ in range(_CALLS)]
        forward.append(time.process_time() - started)
        started = time.process_time()
        for y in outputs:
            y.backward(grad)
            for weight in part.weights:
                weight.grad = None
        backward.append(time.process_time() - started)
    return tuple(1e6 * float(np.median(times)) / _CALLS for times in (forward, backward))  # type: ignore[return-value]


class MeasuringTape(NoTape):
    """Does nothing, and says how many bytes a recording would take."""

    def __init__(self, computation: Computation, place: Hashable, memory: Memory) -> None:
        saved: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            saved[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            live = computation.forward()
        self.outputs = tuple(output.detach() for output in live)
        vector = torch.cat([weight.flatten() for weight in computation.weights])
        self.gradients = (*(torch.empty_like(x) for x in computation.inputs), vector)
        outputs = sum(output.nbytes for output in self.outputs)
        memory.kept += outputs + sum(gradient.nbytes for gradient in self.gradients)
        # Beside what the backward pass needs, the input among it, the gradient of the output that it is given.
        memory.working[place].append(sum(saved.values()) + outputs)


class Memory:
    """Of a supernet's recordings, in bytes."""

    def __init__(self) -> None:
        self.kept = 0
        """Outputs, and gradients that are given, of every recording its own."""
        self.working: dict[Hashable, list[int]] = defaultdict(list)
        """What else a pass needs, of the recordings at each place."""

    @property
    def num_recordings(self) -> int:
        return sum(map(len, self.working.values()))

    def apart(self) -> int:
        """Where every recording has all to itself."""
        return self.kept + sum(map(sum, self.working.values()))

    def shared(self) -> int:
        """Where those of a place share what a pass needs: it is as much as the largest needs."""
        return self.kept + sum(map(max, self.working.values()))


def memory_of(config: SearchConfig, *, side: int, dtype: torch.dtype) -> Memory:
    """Of a search of images of side × side pixels, once all operations have been at work. Nothing is computed."""
    supernet = build_supernet(
        config.space, config.search_space, config.network, input_shape=(side, side, 3), num_classes=10, seed=0
    )
    supernet.classifier = nn.Identity()  # which wants a real device, and is not recorded
    supernet, memory, rng = supernet.to("meta", dtype), Memory(), random.Random(0)
    graphs = Graphs(lambda computation, place: MeasuringTape(computation, place, memory))
    graph_operations(supernet, graphs)
    images = torch.empty(config.batch_size, 3, side, side, device="meta", dtype=dtype)
    images = images.to(memory_format=torch.channels_last)
    found, quiet = 0, 0
    while quiet < _QUIET:
        supernet(images, config.search_space.random(rng))
        found, quiet = len(graphs), quiet + 1 if len(graphs) == found else 0
    return memory


def main() -> None:
    """Print all of it, for docs/gpu.md."""
    forward, backward = host_cost()
    print(f"\nreplay of a separable convolution, host: {forward:.0f} µs forward, {backward:.0f} µs backward")
    graph_step.main()
    config = search_preset("micro", "reference", image_size=32)
    for dtype in (torch.float32, torch.bfloat16):
        memory = memory_of(config, side=32, dtype=dtype)
        apart, shared = memory.apart() / 2**30, memory.shared() / 2**30
        print(f"micro reference, {memory.num_recordings} recordings, {dtype}: {shared:.1f} GiB; apart {apart:.1f} GiB")


if __name__ == "__main__":
    main()
