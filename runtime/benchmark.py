"""Measuring callables side by side. Knows nothing of models, files or frameworks: calls, times, hands back samples.

Several contestants take turns in rounds, A B, B A, A B, …, each turn a short run of calls. Whatever slows the machine
for a while slows neighbouring turns alike, so a ratio taken round by round stays true on a noisy machine, and turning
every other round about cancels a steady drift. Where contestants alternate, the first calls of a turn are made and not
counted: they would pay for the other's cold caches and its threads, which spin on for a while.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from runtime import statistics
from runtime.statistics import Estimate

# Two sessions of one file, measured side by side, keep a difference of up to 0.4 % for as long as they live: it matters
# where their memory happens to lie. A session beside itself agrees to 0.05 %.
_RESOLUTION = 0.005


class BenchmarkError(ValueError):
    """A contestant cannot be measured."""


@dataclass(frozen=True)
class Plan:
    """How long and how carefully to measure."""

    duration_s: float = 3.0
    """Time of calls to sample from each contestant."""
    min_samples: int = 64
    """Samples to take from each contestant even if `duration_s` is over: 64 support a p90."""
    patience: float = 5.0
    """Give up on `min_samples` after this many times `duration_s`."""
    warmup_s: float = 2.0
    """Longest warm-up of a contestant; it ends as soon as three windows' medians lie within 10 %."""
    window_s: float = 0.05
    """Length of a warm-up window, three calls at least."""
    turn_s: float = 0.03
    """Length of a turn, one call at least."""
    settle_s: float = 0.01
    """Length of what is not counted at the head of a turn, one call at least, where contestants alternate."""

    def __post_init__(self) -> None:
        for name in ("duration_s", "min_samples", "window_s", "turn_s"):
            if getattr(self, name) <= 0:
                raise BenchmarkError(f"{name} is {getattr(self, name)}, but must be more than 0")
        for name in ("warmup_s", "settle_s"):
            if getattr(self, name) < 0:
                raise BenchmarkError(f"{name} is {getattr(self, name)}, but must not be negative")
        if self.patience < 1:
            raise BenchmarkError(f"patience is {self.patience}, but must be at least 1")


@dataclass(frozen=True)
class Contestant:
    name: str
    call: Callable[[], object]


@dataclass(frozen=True)
class WarmUp:
    calls: int
    seconds: float
    is_steady: bool


@dataclass
class Series:
    """What was measured of one contestant."""

    name: str
    first_ms: float | None = None
    """The very first call, cold; None if interrupted before."""
    warm_up: WarmUp | None = None
    turns: list[list[int]] = field(default_factory=list)
    """Nanoseconds of every counted call, turn by turn; turn i of every contestant belongs to round i."""

    @property
    def samples_ms(self) -> np.ndarray:
        """All counted calls in order: [n]."""
        return np.array([ns for turn in self.turns for ns in turn], dtype=np.float64) / 1e6

    def speed_relative_to(self, baseline: Series) -> Estimate | None:
        """How many times as fast as `baseline` this is, round by round; None without a common round."""
        rounds = [(other, own) for other, own in zip(baseline.turns, self.turns, strict=False) if other and own]
        if not rounds:
            return None
        return statistics.paired_ratio(
            [np.median(other) for other, _ in rounds], [np.median(own) for _, own in rounds], resolution=_RESOLUTION
        )


@dataclass
class Measurement:
    series: tuple[Series, ...]
    is_partial: bool = False
    """Interrupted: the samples are good, but fewer than planned."""


def measure(
    contestants: Sequence[Contestant], *, plan: Plan, advance: Callable[[float], object] = lambda seconds: None
) -> Measurement:
    """First call, warm-up and interleaved samples of every contestant.

    Ctrl-C ends the measurement early and keeps what was measured.

    Args: advance: told the seconds spent since it was last told, to draw progress with.
    Raises: BenchmarkError: a contestant's first call fails.
    """
    measurement = Measurement(tuple(Series(contestant.name) for contestant in contestants))
    progress = _Progress(advance)
    try:
        with _no_garbage_collection():
            for contestant, series in zip(contestants, measurement.series, strict=True):
                series.first_ms = _first_call(contestant)
                series.warm_up = _warm_up(contestant.call, plan=plan, progress=progress)
            _take_turns(contestants, measurement.series, plan=plan, progress=progress)
    except KeyboardInterrupt:
        measurement.is_partial = True
    return measurement


def longest_s(num_contestants: int, plan: Plan) -> float:
    """About how long `measure` takes at most while `min_samples` are reached in time."""
    return num_contestants * (plan.warmup_s + plan.duration_s)


def _first_call(contestant: Contestant) -> float:
    start = time.perf_counter_ns()
    try:
        contestant.call()
    except Exception as error:
        raise BenchmarkError(f"{contestant.name} fails: {error}") from error
    return (time.perf_counter_ns() - start) / 1e6


def _warm_up(call: Callable[[], object], *, plan: Plan, progress: _Progress) -> WarmUp:
    start = time.perf_counter()
    num_calls = 0
    medians: list[float] = []
    while not statistics.is_steady(medians) and time.perf_counter() - start < plan.warmup_s:
        durations: list[int] = []
        _turn(call, seconds=plan.window_s, min_calls=3, durations=durations)
        num_calls += len(durations)
        medians.append(float(np.median(durations)))
        progress.tick()
    return WarmUp(num_calls, time.perf_counter() - start, statistics.is_steady(medians))


def _take_turns(
    contestants: Sequence[Contestant], series: Sequence[Series], *, plan: Plan, progress: _Progress
) -> None:
    pairs = list(zip(contestants, series, strict=True))
    planned_s = plan.duration_s * len(pairs)
    fewest_samples, elapsed_s, start = 0, 0.0, time.perf_counter()
    while elapsed_s < planned_s or (fewest_samples < plan.min_samples and elapsed_s < planned_s * plan.patience):
        for contestant, one in pairs:
            if len(pairs) > 1:
                _turn(contestant.call, seconds=plan.settle_s, min_calls=1, durations=[])
            durations: list[int] = []
            # In place before it is filled: what an interrupted turn has measured is kept.
            one.turns.append(durations)
            _turn(contestant.call, seconds=plan.turn_s, min_calls=1, durations=durations)
            progress.tick()
        pairs.reverse()
        fewest_samples += min(len(one.turns[-1]) for one in series)
        elapsed_s = time.perf_counter() - start


def _turn(call: Callable[[], object], *, seconds: float, min_calls: int, durations: list[int]) -> None:
    """Call for `seconds` and `min_calls` at least, appending each call's nanoseconds to `durations`."""
    clock = time.perf_counter_ns
    record = durations.append
    end = clock()
    stop = end + int(seconds * 1e9)
    while end < stop or len(durations) < min_calls:
        start = clock()
        call()
        end = clock()
        record(end - start)


class _Progress:
    """Seconds since the last tick, for a bar."""

    def __init__(self, advance: Callable[[float], object]) -> None:
        self._advance = advance
        self._last = time.perf_counter()

    def tick(self) -> None:
        now = time.perf_counter()
        self._advance(now - self._last)
        self._last = now


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a call would be this process's doing, not the contestant's."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
