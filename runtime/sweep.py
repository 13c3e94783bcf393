"""Models over batch sizes: makes the contestants of each size, measures them side by side, gathers what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from datasets.seeds import numpy_generator
from runtime import statistics
from runtime.benchmark import Contestant, Plan, Series, longest_s, measure
from runtime.machine import Activity, Machine, Reading
from runtime.model import Model
from runtime.progress import progress
from runtime.statistics import Estimate

# B batch, H height, W width, C channels, K classes

Predict = Callable[[np.ndarray], np.ndarray]
"""Images [B, H, W, C] uint8 -> logits [B, K]."""

# Beyond this spread of the middle half of its samples a series is called noisy.
_NOISY_SPREAD = 0.10


@dataclass(frozen=True)
class Point:
    """One contestant at one batch size."""

    batch_size: int
    series: Series
    speed: Estimate | None
    """How many times as fast as the baseline, round by round; None for the baseline itself."""

    @property
    def images_per_s(self) -> float:
        """Images per second of calls, one call after the other: slow calls count, as in a median they do not."""
        return self.batch_size / (float(self.series.samples_ms.mean()) / 1e3)

    def disturbances(self) -> list[str]:
        samples, warm_up = self.series.samples_ms, self.series.warm_up
        reasons = []
        if warm_up is not None and not warm_up.is_steady:
            reasons.append(f"not steady after {warm_up.seconds:.1f} s of warm-up")
        if samples.size and (spread := statistics.spread(samples)) > _NOISY_SPREAD:
            reasons.append(f"the middle half of its samples spans {spread:.0%} of the median")
        return reasons


@dataclass(frozen=True)
class Sweep:
    """A benchmark as it was run."""

    started: datetime
    models: Mapping[str, Model]
    """Name -> model, in the order of the command line."""
    baseline: str | None
    """The contestant that the others are compared with; None where there is one alone."""
    points: Sequence[Point]
    plan: Plan
    threads: int
    seed: int
    machine: Machine
    activity: Activity
    is_partial: bool
    """Interrupted: what was measured is good, but there is less of it."""

    def disturbances(self) -> list[str]:
        """Why the figures are to be taken with care; empty after a quiet run."""
        return self.activity.disturbances() + [
            f"{point.series.name} at batch {point.batch_size}: {reason}"
            for point in self.points
            for reason in point.disturbances()
        ]


def run_sweep(
    models: Mapping[str, Model],
    *,
    peers: Mapping[str, Predict],
    batch_sizes: Sequence[int],
    plan: Plan,
    threads: int,
    seed: int,
) -> Sweep:
    """Measure every model and peer at every batch size, on random images.

    The baseline is the first peer, or the first of several models. Ctrl-C ends the sweep and keeps what was measured.

    Args: peers: name -> what the models are compared with; takes the first model's images.
    Raises: BenchmarkError: a contestant's first call fails.
    """
    names = [*models, *peers]
    baseline = next(iter(peers), names[0]) if len(names) > 1 else None
    machine, started, before = Machine.inspect(), datetime.now(UTC), Reading.take()
    points: list[Point] = []
    is_partial = False
    for batch_size in batch_sizes:
        contestants = list(_contestants(models, peers, batch_size=batch_size, seed=seed))
        total_s = longest_s(len(contestants), plan)
        with progress(f"batch {batch_size}: {', '.join(names)}", total=total_s) as advance:
            measurement = measure(contestants, plan=plan, advance=advance)
        points += _points(measurement.series, batch_size=batch_size, baseline=baseline)
        if measurement.is_partial:
            is_partial = True
            break
    activity = Activity.between(before, Reading.take(), cores=machine.usable_cores)
    return Sweep(started, models, baseline, points, plan, threads, seed, machine, activity, is_partial)


def _contestants(
    models: Mapping[str, Model], peers: Mapping[str, Predict], *, batch_size: int, seed: int
) -> Iterator[Contestant]:
    for name, model in models.items():
        yield Contestant(name, model.bind(_random_images(model, batch_size=batch_size, seed=seed)))
    for name, predict in peers.items():
        first = next(iter(models.values()))
        yield Contestant(name, partial(predict, _random_images(first, batch_size=batch_size, seed=seed)))


def _random_images(model: Model, *, batch_size: int, seed: int) -> np.ndarray:
    """[B, H, W, C] uint8, the same for every model of one image shape."""
    generator = numpy_generator(seed, "benchmark", batch_size)
    return generator.integers(0, 256, (batch_size, *model.image_shape), dtype=np.uint8)


def _points(series: Sequence[Series], *, batch_size: int, baseline: str | None) -> list[Point]:
    compared = {one.name: one for one in series}
    return [
        Point(
            batch_size,
            one,
            one.speed_relative_to(compared[baseline]) if baseline is not None and one.name != baseline else None,
        )
        for one in series
    ]
