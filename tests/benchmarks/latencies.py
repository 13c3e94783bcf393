"""How well a network's latency is known: what differs from one sitting to the next, by medians and as fits measure it.

Every run opens the published networks of the space `stages` anew and measures them in turn, as `exporter.latency` does.
What slows all of a run alike cancels. Run it on the machine as it is used, for a quiet one shows no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from exporter.latency.measure import FITTING, UNDISTURBED, onnx_of
from runtime.benchmarking.benchmark import Contestant, Plan, measure
from runtime.benchmarking.targets import OnnxTarget, Transfer
from runtime.models.inputs import random_inputs
from runtime.models.providers import DEFAULT_TUNING
from searcher.arch.catalog import published_names, published_spec

RUNS = 12


def main() -> None:
    specs = [published_spec(name) for name in published_names()]
    contestants = [_contestant(onnx_of(spec)) for spec in specs if spec.space == "stages"]
    plan = Plan(duration_s=FITTING.seconds, sittings=FITTING.sittings, warmup_s=0.1, turn_s=0.01)
    runs = [[series.samples_ms for series in measure(contestants, plan=plan).series] for _ in range(RUNS)]
    print(
        f"\n{len(contestants)} networks, {RUNS} runs: a network's time beside the others', standard deviation and most"
    )
    for name, of in {
        "median call": lambda samples: float(np.median(samples)),
        "fastest tenth": lambda samples: float(np.quantile(samples, UNDISTURBED)),
    }.items():
        scatter, most = _scatter(runs, of)
        print(f"  {name:14} {scatter:6.2%} {most:6.1%}")


def _contestant(data: bytes) -> Contestant:
    target = OnnxTarget.load("network", data, provider="cpu", threads=1, tuning=DEFAULT_TUNING, transfer=Transfer())
    feed = random_inputs(target.inputs, batch_size=1, sizes={}, seed=0)
    return Contestant(target.name, partial(target.open, feed, None), target.examine)


def _scatter(runs: list[list[np.ndarray]], of: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Standard deviation and largest deviation over the runs, as shares of a network's time."""
    logs = np.log([[of(samples) for samples in run] for run in runs])  # [run, network]
    relative = logs - logs.mean(axis=1, keepdims=True)
    return float(relative.std(axis=0, ddof=1).mean()), float(np.abs(relative - np.median(relative, axis=0)).max())
