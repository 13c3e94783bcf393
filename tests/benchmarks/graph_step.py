"""What the host does for a training step of the preset `reference` with graphs, which a GPU has to wait for.

Tapes do nothing, channels and pictures are small and arithmetic takes next to no time, so what is left is Python's
and torch's own work, here on a CPU. The cells, the policy that draws architectures, and the optimiser are the preset's.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from searcher.controller.policy import LstmPolicy
from searcher.nn.build import build_supernet
from searcher.nn.graphs import Graphs, graph_operations
from searcher.nn.micro import MicroNetwork
from searcher.nn.recordings import Replayed
from searcher.nn.tapes import Computation
from searcher.presets.catalog import search_preset
from searcher.training.image_learner import ImageTraining, classification_loss
from searcher.training.optimizers.flat_sgd import FlatSgd
from tests.benchmarks.gpu_measuring import Call
from tests.benchmarks.gpu_works import training_step

_CHANNELS, _SIDE, _BATCH = 4, 8, 2
_ARCHITECTURES, _ROUNDS = 12, 25


class NoTape:
    """Does nothing: what is left of a call is the host's work around a replay."""

    num_replays = 0

    def __init__(self, computation: Computation, place: Hashable) -> None:
        live = computation.forward()
        self.outputs = tuple(output.detach().clone() for output in live)
        self.gradients = tuple(gradient.clone() for gradient in computation.backward(live, self.outputs))

    def forward(self) -> None:
        NoTape.num_replays += 1

    def backward(self, gradients: Sequence[Tensor]) -> None:
        NoTape.num_replays += 1


def make_step() -> Call:
    """A step of training; of those in a row each takes another of a few architectures."""
    config = search_preset("micro", "reference", image_size=32)
    assert isinstance(config.training, ImageTraining)
    supernet = build_supernet(
        config.space,
        config.search_space,
        replace(config.network, channels=_CHANNELS),
        input_shape=(_SIDE, _SIDE, 3),
        num_classes=10,
        seed=0,
        auxiliary=True,
        dropout_prob=config.training.dropout_prob,
    )
    graph_operations(supernet, Graphs(NoTape))
    policy = LstmPolicy(config.search_space.steps(), config.policy, seed=0)
    with torch.no_grad():
        tokens = policy.sample(_ARCHITECTURES, generator=torch.Generator().manual_seed(0)).tokens
    order = itertools.cycle([config.search_space.from_tokens(row) for row in tokens.tolist()])
    images = torch.randn(_BATCH, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(_BATCH)

    def loss() -> Tensor:
        return classification_loss(*supernet(images, next(order)), labels, training=config.training)

    return training_step(supernet, loss, torch.device("cpu"), config.sgd)


class Stopwatches:
    """CPU seconds of functions by name; what one takes does not count for another that calls it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                took = time.process_time() - started
                self.seconds[name] += took - self._inner.pop()
                self._inner[-1] += took

        return wrapper


@contextmanager
def watched(step: Call) -> Iterator[tuple[Call, Counter[str]]]:
    """The step, and what each part of it takes."""
    watches = Stopwatches()
    with ExitStack() as stack:
        for name, owner, method in (
            ("tapes' path, forward", Graphs, "call"),
            ("network around it, forward", MicroNetwork, "forward"),
            ("network around it, backward", Tensor, "backward"),
            ("optimiser", FlatSgd, "step"),
        ):
            stack.enter_context(mock.patch.object(owner, method, watches.timed(name, getattr(owner, method))))
        backward = staticmethod(watches.timed("tapes' path, backward", Replayed.backward))
        stack.enter_context(mock.patch.object(Replayed, "backward", backward))
        yield watches.timed("trainer and loss", step), watches.seconds


class _Launches(TorchDispatchMode):
    """Counts operations that would be a launch or a copy on a GPU: all but views and what only takes memory."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        _Launches.count += not is_view and "empty" not in func.__name__ and func.__name__ != "detach.default"
        return func(*args, **(kwargs or {}))


def launches(step: Call) -> tuple[float, float]:
    """Of a step: operations, those of several tensors at once counted as one, and replays."""
    _Launches.count = NoTape.num_replays = 0
    with _Launches():
        for _ in range(_ARCHITECTURES):
            step()
    return _Launches.count / _ARCHITECTURES, NoTape.num_replays / _ARCHITECTURES


def main() -> None:
    """Print the time of a step, medians over rounds, and how it divides."""
    step = make_step()
    for _ in range(2 * _ARCHITECTURES):  # which records what there is
        step()
    operations, replays = launches(step)
    rounds, shares = [], []
    for _ in range(_ROUNDS):
        started = time.process_time()
        for _ in range(_ARCHITECTURES):
            step()
        rounds.append(time.process_time() - started)
        with watched(step) as (watched_step, seconds):
            for _ in range(_ARCHITECTURES):
                watched_step()
        shares.append(seconds)
    per_step_ms = 1e3 / _ARCHITECTURES
    ms = per_step_ms * float(np.median(rounds))
    print(
        f"\nstep of micro reference, host: {ms:.2f} ms of CPU time, {operations:.0f} operations, {replays:.0f} replays"
    )
    for name in shares[0]:
        print(f"  {name:<30}{per_step_ms * float(np.median([share[name] for share in shares])):6.2f} ms")


if __name__ == "__main__":
    main()
