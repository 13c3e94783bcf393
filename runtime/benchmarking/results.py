"""What a benchmark found: points, and what of them meets a latency."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from foundation import statistics
from foundation.machine import Activity, Machine, drift
from foundation.statistics import Estimate
from runtime.benchmarking.benchmark import Plan
from runtime.benchmarking.samples import Series
from runtime.benchmarking.scenarios import Load
from runtime.benchmarking.targets import Target

# Beyond this spread of the middle half of its samples a series is called noisy.
_NOISY_SPREAD = 0.10

Doubt = Literal["too few samples", "unsettled"]
"""Fewer samples than the quantile takes; or enough, but the goal lies within its interval, or successive ones are too
much alike for one."""


@dataclass(frozen=True)
class Goal:
    """A latency to be met."""

    latency_ms: float
    q: float = 0.99
    """The share of calls that must meet it."""

    def is_met_by(self, series: Series) -> bool | None:
        """Whether the quantile meets it with its whole interval; None: the samples do not settle it, see `Doubt`."""
        samples = series.samples_ms
        interval = statistics.quantile(samples, self.q).interval if self._is_supported_by(series) else None
        if interval is not None:
            return None if interval.low <= self.latency_ms < interval.high else interval.high <= self.latency_ms
        if not samples.size:
            return None
        # Without an interval it is a miss where clearly more calls miss it than the quantile leaves out.
        missed = statistics.share_of(samples > self.latency_ms).interval
        return False if missed is not None and missed.low > 1 - self.q else None

    def most_of(self, points: Sequence[Point], *, by: Callable[[Point], Any]) -> tuple[Point | None, Doubt | None]:
        """The largest point that meets it, and why it is not known whether a larger one does; None: none does.

        Points beyond the first that misses it or failed do not count: an answer holds up to itself.

        Args: by: what is compared.
        """
        rising = sorted(points, key=by)
        below = list(itertools.takewhile(lambda point: not self._is_missed_by(point.series), rising))
        most = max((point for point in below if self.is_met_by(point.series)), key=by, default=None)
        unknown = [point.series for point in below if most is None or by(point) > by(most)]
        if not unknown:
            return most, None
        return most, "unsettled" if all(map(self._is_supported_by, unknown)) else "too few samples"

    def _is_missed_by(self, series: Series) -> bool:
        return series.failure is not None or self.is_met_by(series) is False

    def _is_supported_by(self, series: Series) -> bool:
        return statistics.supports(series.samples_ms.size, self.q)


@dataclass(frozen=True)
class Point:
    """One contestant at one batch size, number of threads and load."""

    batch_size: int
    threads: int | None
    """Intra-op threads; None where the target is not in this process."""
    load: Load
    series: Series
    speed: Estimate | None
    """How many times as fast as the baseline; None for the baseline itself."""

    @property
    def items_per_s(self) -> float | None:
        """None without an answered call."""
        rate = self.series.calls_per_s
        return None if rate is None else rate * self.batch_size * self.load.calls_a_query

    def disturbances(self) -> list[str]:
        samples = self.series.samples_ms
        reasons = [] if self.series.is_steady else ["not steady at the end of its warm-up"]
        if self.load.scenario == "single-stream" and samples.size:
            spread = statistics.spread(samples)
            if spread > _NOISY_SPREAD:
                reasons.append(f"the middle half of its samples spans {spread:.0%} of the median")
        return reasons


@dataclass(frozen=True)
class Answer:
    """The most that meets the goal, of what was tried; a rate is one of calls of a size, with so many in flight."""

    name: str
    threads: int | None
    of: Literal["batch", "rate"]
    most: float | None
    """The largest batch, or the largest rate of calls a second; None: none is known to meet the goal."""
    batch_size: int | None = None
    """Of the calls that come at that rate; None where the batch is the answer."""
    concurrency: int | None = None
    """How many of them may be in flight; None where the batch is the answer."""
    doubt: Doubt | None = None
    """Why it is not known whether more than that meets it; None where it is known, of what was tried."""


@dataclass
class Sweep:
    """A benchmark as it was run."""

    started: datetime
    targets: Mapping[str, Target]
    """Name -> target, in the order of the command line."""
    baseline: str | None
    """The contestant that the others are compared with; None where there is one alone."""
    plan: Plan
    seed: int
    machine: Machine
    goal: Goal | None = None
    points: list[Point] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    calibration_ms: list[float] = field(default_factory=list)
    """What a fixed loop took at the head of every sitting."""
    activity: Activity | None = None
    is_partial: bool = False
    """Interrupted: what was measured is good, but there is less of it."""

    @property
    def unit(self) -> str:
        """What batches are made of."""
        firsts = {(spec.name, len(spec.shape)) for target in self.targets.values() for spec in target.inputs[:1]}
        units = {("images", 4): "images", ("tokens", 1): "tokens"}
        return units.get(firsts.pop(), "items") if len(firsts) == 1 else "items"

    @property
    def failures(self) -> list[str]:
        """What failed, and why, each reason once; with the number of calls where others were answered."""
        batches: dict[tuple[str, str], list[str]] = {}
        calls: Counter[tuple[str, str]] = Counter()
        for point in self.points:
            series = point.series
            for reason, count in (series.failed_calls if series.failure is None else {series.failure: 0}).items():
                batches.setdefault((series.name, reason), []).append(str(point.batch_size))
                calls[series.name, reason] += count
        return [
            f"{name} at batch {', '.join(dict.fromkeys(sizes))}: {reason}"
            + (f" ({calls[name, reason]:,} calls)" if calls[name, reason] else "")
            for (name, reason), sizes in batches.items()
        ]

    @property
    def remarks(self) -> list[str]:
        """Remarks on the answers of calls."""
        told = (f"{point.series.name} {point.series.remark}" for point in self.points if point.series.remark)
        return list(dict.fromkeys(told))

    @property
    def waits_for_others(self) -> bool:
        """Whether calls of several threads had to share the cores with other processes."""
        is_shared = self.activity is not None and self.activity.is_shared
        return is_shared and any((point.threads or 1) > 1 for point in self.points)

    def disturbances(self) -> list[str]:
        """Why the figures may be off; empty after a quiet run."""
        has_loads = any(point.load.scenario != "single-stream" for point in self.points)
        activity = [] if self.activity is None else self.activity.disturbances(has_many_threads=has_loads)
        of_points = [
            f"{point.series.name} at batch {point.batch_size}: {reason}"
            for point in self.points
            for reason in point.disturbances()
        ]
        return [*activity, *drift(self.calibration_ms), *of_points]
