"""The results of a benchmark: points, and which of them meet a latency goal."""

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

# A series is noisy if the middle half of its samples spreads further than this.
_NOISY_SPREAD = 0.10

Doubt = Literal["too few samples", "unsettled"]
"""too few samples: fewer than the quantile needs. unsettled: enough, but the goal lies within the quantile's interval,
or successive samples are too correlated for an interval."""


@dataclass(frozen=True)
class Goal:
    """A latency that a share of the calls must meet."""

    latency_ms: float
    q: float = 0.99
    """The share of calls that must meet it."""

    def is_met_by(self, series: Series) -> bool | None:
        """Whether the quantile's whole interval meets the goal; None if the samples do not settle it, see `Doubt`."""
        samples = series.samples_ms
        interval = statistics.quantile(samples, self.q).interval if self._is_supported_by(series) else None
        if interval is not None:
            return None if interval.low <= self.latency_ms < interval.high else interval.high <= self.latency_ms
        if not samples.size:
            return None
        # Without an interval, the goal is missed if significantly more calls miss it than the quantile allows.
        missed = statistics.share_of(samples > self.latency_ms).interval
        return False if missed is not None and missed.low > 1 - self.q else None

    def most_of(self, points: Sequence[Point], *, by: Callable[[Point], Any]) -> tuple[Point | None, Doubt | None]:
        """Returns the largest point that meets the goal, and why it is unknown whether a larger point does.

        The point is None if no point meets the goal, the reason is None if it is known. Points beyond the first that
        failed or misses the goal are ignored, so that no point below the answer misses the goal.

        Args: by: the key by which points are compared.
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
    """The speed as a multiple of the baseline's; None for the baseline itself, or if they cannot be compared."""

    @property
    def items_per_s(self) -> float | None:
        """Answered items per second; None without an answered call."""
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
    """The largest batch or rate tried that meets the goal; a rate holds for one batch size and number in flight."""

    name: str
    threads: int | None
    of: Literal["batch", "rate"]
    most: float | None
    """The largest batch size, or the largest rate in calls per second; None if none is known to meet the goal."""
    batch_size: int | None = None
    """Batch size of the calls at that rate; None if the answer is a batch size."""
    concurrency: int | None = None
    """Calls at that rate that may be in flight; None if the answer is a batch size."""
    doubt: Doubt | None = None
    """Why it is unknown whether a larger value that was tried meets the goal; None if it is known."""


@dataclass
class Sweep:
    """A benchmark's conditions and results."""

    started: datetime
    targets: Mapping[str, Target]
    """Name -> target, in the order of the command line."""
    baseline: str | None
    """The contestant that the others are compared with; None if there is only one."""
    plan: Plan
    seed: int
    machine: Machine
    goal: Goal | None = None
    points: list[Point] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    calibration_ms: list[float] = field(default_factory=list)
    """Duration of a fixed loop at the start of every sitting."""
    activity: Activity | None = None
    is_partial: bool = False
    """Whether it was interrupted: the results are valid, but incomplete."""

    @property
    def unit(self) -> str:
        """The noun for the elements of a batch."""
        firsts = {(spec.name, len(spec.shape)) for target in self.targets.values() for spec in target.inputs[:1]}
        units = {("images", 4): "images", ("tokens", 1): "tokens"}
        return units.get(firsts.pop(), "items") if len(firsts) == 1 else "items"

    @property
    def failures(self) -> list[str]:
        """Failures with their reasons, each reason once; with the number of calls if other calls were answered."""
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
        """Remarks on the results of calls."""
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
