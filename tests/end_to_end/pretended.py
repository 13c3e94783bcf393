"""Latencies that a block's products give, in place of measured ones: the same on every machine, and without a second
of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from exporter.latency import measure as latency
from exporter.latency import profiling, scaling
from exporter.latency.measure import Latencies, Untrained
from exporter.selection import target
from foundation.machine import Machine
from foundation.statistics import Estimate, Interval
from searcher.arch.spaces.stages import StagesSpace
from searcher.arch.spec import SpecOf
from searcher.latency.blocks import Block, blocks_of

SPACE = StagesSpace((4, 8), (1, 2), ((4, 8), (8, 16), (16,)), (2, 1, 1), ("residual_3x3", "inverted_3x3_e2"))


def pretended_ms(block: Block) -> float:
    """A block's latency, as if every product took ten nanoseconds."""
    width, height = block.width / block.stride, block.height / block.stride
    return 1e-5 * width * height * block.in_channels * block.out_channels * 9 + 0.01


def pretend(networks: Sequence[Untrained | bytes], *, batch: int = 1, threads: int = 1, **_: Any) -> Latencies:
    """Instead of `measure`: what every block takes, and nothing for what joins them."""
    times = []
    for network in networks:
        if isinstance(network, SpecOf):
            times.append(sum(map(pretended_ms, blocks_of(network))))
        else:
            block = getattr(network.network, "measured_block", None)  # type: ignore[union-attr]
            times.append(0.1 if block is None else 0.1 + pretended_ms(block))
    estimates = tuple(Estimate(ms, Interval(ms, ms)) for ms in times)
    return Latencies(estimates, estimates, batch, threads, Machine.inspect(), ())


# What is imported while `measure` is replaced would keep the replacement.
for _module in ("judging.contenders", "delivery.export", "judging.ranking", "delivery.triton", "delivery.variants"):
    import_module(f"exporter.{_module}")


def pretend_everywhere(patch: pytest.MonkeyPatch, data_folder: Path) -> None:
    """Latency tables go into the folder, and hold what is pretended."""
    patch.setenv("ENAS_DATA", str(data_folder))
    for module in (latency, profiling, scaling):
        patch.setattr(module, "measure", pretend)
    for module in (target, profiling):
        patch.setattr(module, "onnx_of", lambda spec: spec)
    original = profiling.probe

    def probe(space: str, block: Block) -> Any:
        made = original(space, block)
        made.network.measured_block = block
        return made

    patch.setattr(profiling, "probe", probe)
