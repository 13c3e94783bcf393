"""The data of a measurement: sittings of one contestant, and the turns of calls in each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from foundation import statistics
from foundation.statistics import Estimate

# n samples

Turn = list[float]
"""Nanoseconds of each call, in the order in which they ended; infinite for a failed call."""


@dataclass(frozen=True)
class WarmUp:
    calls: int
    seconds: float
    is_steady: bool


@dataclass
class Traffic:
    """Statistics of a load, beyond the latencies."""

    by_schedule: bool
    """Whether calls were due on a schedule, instead of whenever a worker was free."""
    seconds: float = 0.0
    """From the start of the load to the end of its last call, answered or failed."""
    unserved: int = 0
    """Scheduled calls that were not started within the time limit that `Plan.patience` sets."""
    failures: dict[str, int] = field(default_factory=dict)
    """Reason -> number of failed calls."""
    late_s: float = 0.0
    """Longest time that a due call waited for a worker."""


@dataclass
class Sitting:
    """Measurements of one contestant between opening and closing it."""

    open_ms: float | None = None
    """None if it was already open."""
    cold_ms: float | None = None
    """The very first call; None in every other sitting, which makes it with another shape."""
    new_shape_ms: float | None = None
    """The first call of this shape after one of another shape; None in the sittings that have `cold_ms`."""
    warm_up: WarmUp | None = None
    turns: list[Turn] = field(default_factory=list)
    """Every counted call, turn by turn; turn i of every contestant belongs to round i."""
    traffic: Traffic | None = None
    """Set in the offline and server scenarios, else None."""

    @property
    def samples_ms(self) -> np.ndarray:
        """All counted calls in order: [n]; infinite for failed calls, and at the end for calls that never started."""
        made = np.array([ns for turn in self.turns for ns in turn], dtype=np.float64) / 1e6
        unserved = 0 if self.traffic is None else self.traffic.unserved
        return np.concatenate([made, np.full(unserved, np.inf)]) if unserved else made

    @property
    def seconds(self) -> float:
        """The total duration of the answered calls; with `traffic`, the duration of the load."""
        return self.traffic.seconds if self.traffic is not None else sum(map(sum, self._answered)) / 1e9

    @property
    def num_served(self) -> int:
        return sum(map(len, self._answered))

    @property
    def _answered(self) -> Sequence[Turn]:
        return [[ns for ns in turn if math.isfinite(ns)] for turn in self.turns]

    def speed_relative_to(self, baseline: Sitting) -> float | None:
        """Returns the speed as a multiple of `baseline`'s; None if either has no sample.

        Compares round by round; in the offline scenario it compares the rates of answered calls.
        """
        if self.traffic is not None and baseline.traffic is not None and not self.traffic.by_schedule:
            if not (self.num_served and baseline.num_served):
                return None
            return (self.num_served / self.seconds) / (baseline.num_served / baseline.seconds)
        rounds = [(other, own) for other, own in zip(baseline._answered, self._answered, strict=False) if other and own]
        if not rounds:
            return None
        return statistics.round_ratio(
            [float(np.median(other)) for other, _ in rounds], [float(np.median(own)) for _, own in rounds]
        )


@dataclass
class Series:
    """All measurements of one contestant."""

    name: str
    sittings: list[Sitting] = field(default_factory=list)
    remark: str | None = None
    """Remarks on its results."""
    failure: str | None = None
    """Why it was not measured further; None if all went well."""

    @property
    def samples_ms(self) -> np.ndarray:
        """All counted calls in order: [n]."""
        return np.concatenate([np.empty(0), *(sitting.samples_ms for sitting in self.sittings)])

    @property
    def calls_per_s(self) -> float | None:
        """Answered calls per second, which slow calls reduce, unlike a median; None without any."""
        num_served = sum(sitting.num_served for sitting in self.sittings)
        return num_served / sum(sitting.seconds for sitting in self.sittings) if num_served else None

    @property
    def failed_calls(self) -> Counter[str]:
        """Reason -> number of failed calls of a load."""
        return sum((Counter(sitting.traffic.failures) for sitting in self.sittings if sitting.traffic), Counter[str]())

    @property
    def is_steady(self) -> bool:
        """Whether every warm-up became steady."""
        return all(sitting.warm_up is None or sitting.warm_up.is_steady for sitting in self.sittings)

    def median_ms(self, name: str) -> float | None:
        """The median over the sittings of `open_ms`, `cold_ms` or `new_shape_ms`; None if no sitting has it."""
        values = [value for sitting in self.sittings if (value := getattr(sitting, name)) is not None]
        return float(np.median(values)) if values else None

    def speed_relative_to(self, baseline: Series) -> Estimate | None:
        """Returns the speed as a multiple of `baseline`'s; None without a sitting in which both can be compared."""
        pairs = zip(baseline.sittings, self.sittings, strict=False)
        ratios = [ratio for other, own in pairs if (ratio := own.speed_relative_to(other)) is not None]
        return statistics.ratio_of_sittings(ratios) if ratios else None
