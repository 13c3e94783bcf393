"""Measures callables side by side. Knows nothing of models, files or frameworks: opens, calls, times and returns
samples.

A measurement consists of sittings. In each sitting every contestant is opened afresh, called once and warmed up. The
contestants then take turns in rounds, A B, B A, A B, …; each turn is a short run of calls. Anything that slows the
machine for a while slows neighbouring turns alike, so a ratio computed per round stays valid on a noisy machine.
Reversing every other round cancels a steady drift. Properties that a session keeps for life, such as its addresses in
memory, differ between sittings, so the interval includes their effect. Where contestants alternate, the first calls of
a turn are not counted: they suffer from caches that the other contestant has filled and from its threads, which keep
spinning for a while.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from foundation import statistics
from foundation.machine import calibrate
from runtime.benchmarking.samples import Series, Sitting, Turn, WarmUp
from runtime.models.ort_errors import reason_of

Call = Callable[[], object]
Seen = Literal["nothing", "refused shapes", "other shapes", "this shape"]


class BenchmarkError(ValueError):
    """Nothing can be measured."""


@dataclass(frozen=True)
class Plan:
    """How long and how carefully to measure."""

    duration_s: float = 3.0
    """Sampling time of each contestant, all sittings together."""
    min_samples: int = 64
    """Samples to take from each contestant even if `duration_s` is over: 64 support a p90."""
    sittings: int = 10
    """How many times to open each contestant afresh; a ratio needs at least six for an interval."""
    patience: float = 5.0
    """Give up on `min_samples`, and on opening afresh, after this many times `duration_s`."""
    warmup_s: float = 2.0
    """Longest warm-up of a sitting; it ends as soon as three windows' medians lie within 10 %."""
    window_s: float = 0.02
    """Length of a warm-up window, three calls at least."""
    turn_s: float = 0.03
    """Length of a turn, one call at least."""
    settle_s: float = 0.01
    """Length of the uncounted start of a turn where contestants alternate, one call at least."""

    def __post_init__(self) -> None:
        for name in ("duration_s", "min_samples", "sittings", "window_s", "turn_s"):
            if getattr(self, name) <= 0:
                raise BenchmarkError(f"{name} is {getattr(self, name)}, but must be more than 0")
        for name in ("warmup_s", "settle_s"):
            if getattr(self, name) < 0:
                raise BenchmarkError(f"{name} is {getattr(self, name)}, but must not be negative")
        if self.patience < 1:
            raise BenchmarkError(f"patience is {self.patience}, but must be at least 1")


@dataclass(frozen=True)
class Opened:
    """An opened contestant."""

    connect: Callable[[], Call]
    """Returns a call; threads that call at the same time need one call each."""
    other_shape: Call | None = None
    """Connects and calls with inputs of another shape; separates the first call of a shape from the very first call."""
    is_kept: bool = False
    """Whether it was already open and stays open, so that there is no opening time to report."""
    seen: Seen = "nothing"
    """What it was called with before."""


@dataclass(frozen=True)
class Contestant:
    name: str
    open: Callable[[], AbstractContextManager[Opened]]
    """Opens a new session, which is closed on exit."""
    examine: Callable[[object], str | None] = lambda result: None
    """Returns a remark on the result of a call, or None if all is well; called once."""


@dataclass
class Measurement:
    series: tuple[Series, ...]
    calibration_ms: list[float] = field(default_factory=list)
    """Duration of a fixed loop at the start of every sitting; constant on a machine without other work."""
    is_partial: bool = False
    """Whether it was interrupted: the samples are valid, but fewer than planned."""


@dataclass(frozen=True)
class Player:
    """A warmed-up contestant of a sitting."""

    opened: Opened
    call: Call
    series: Series

    @property
    def sitting(self) -> Sitting:
        return self.series.sittings[-1]


class Play(Protocol):
    """Calls the contestants of a sitting and records each call immediately, so that an interrupt loses nothing."""

    def __call__(
        self, players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]
    ) -> None: ...


def take_turns(players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]) -> None:
    """Makes one call after another, contestant by contestant, with `seconds` of turns for each contestant."""
    order = list(players)
    planned_s = seconds * len(order)
    min_samples = math.ceil(plan.min_samples * seconds / plan.duration_s)
    fewest_samples, elapsed_s, start = 0, 0.0, time.perf_counter()
    while order and (elapsed_s < planned_s or (fewest_samples < min_samples and elapsed_s < planned_s * plan.patience)):
        for player in list(order):
            durations: Turn = []
            with failure_of(player.series) as failed:
                if len(order) > 1:
                    _turn(player.call, seconds=plan.settle_s, min_calls=1, durations=[])
                # Appended before it is filled, so that an interrupted turn keeps its samples.
                player.sitting.turns.append(durations)
                _turn(player.call, seconds=plan.turn_s, min_calls=1, durations=durations)
            if failed:
                order.remove(player)
            tick()
        order.reverse()
        fewest_samples += min((len(player.sitting.turns[-1]) for player in order), default=0)
        elapsed_s = time.perf_counter() - start


@contextmanager
def _heap_set_aside() -> Iterator[None]:
    """Excludes objects that exist before the sittings from garbage collection.

    Scanning them takes 0.2 s where torch and data are loaded.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_heap_set_aside()
def measure(
    contestants: Sequence[Contestant],
    *,
    plan: Plan,
    play: Play = take_turns,
    advance: Callable[[float], object] = lambda seconds: None,
) -> Measurement:
    """Opens every contestant, calls it once, warms it up and samples it, sitting by sitting.

    Ctrl-C ends the measurement early and keeps what was measured; a contestant that fails is left out from then on.

    Args: advance: called with the seconds since its last call, for a progress bar.
    """
    measurement = Measurement(tuple(Series(contestant.name) for contestant in contestants))
    progress = _Progress(advance)
    pairs = list(zip(contestants, measurement.series, strict=True))
    opening_s, left_s = 0.0, plan.duration_s
    try:
        for index in range(plan.sittings):
            is_last = index == plan.sittings - 1 or opening_s > plan.patience * plan.duration_s * len(pairs)
            seconds = left_s if is_last else plan.duration_s / plan.sittings
            left_s -= seconds
            with ExitStack() as sessions, _no_garbage_collection():
                measurement.calibration_ms.append(calibrate())
                start = time.perf_counter()
                players = []
                for contestant, series in pairs:
                    if series.failure is None:
                        # Every other sitting calls another shape first.
                        players += _ready(contestant, series, sessions, plan, progress, reshaped=index % 2 == 1)
                opening_s += time.perf_counter() - start
                play(players, seconds=seconds, plan=plan, tick=progress.tick)
            pairs.reverse()
            if is_last or all(series.failure is not None for series in measurement.series):
                break
    except KeyboardInterrupt:
        measurement.is_partial = True
    return measurement


def longest_s(num_contestants: int, plan: Plan) -> float:
    """Estimates how long `measure` takes if opening is quick and the calls soon become steady."""
    return num_contestants * (plan.duration_s + plan.sittings * min(plan.warmup_s, 3 * plan.window_s))


def _ready(
    contestant: Contestant,
    series: Series,
    sessions: ExitStack,
    plan: Plan,
    progress: _Progress,
    *,
    reshaped: bool,
) -> list[Player]:
    """Opens a contestant, calls it once and warms it up; returns an empty list if that fails."""
    sitting = Sitting()
    series.sittings.append(sitting)
    with failure_of(series):
        start = time.perf_counter_ns()
        opened = sessions.enter_context(contestant.open())
        open_ms = (time.perf_counter_ns() - start) / 1e6
        sitting.open_ms = None if opened.is_kept else open_ms
        seen: Seen = opened.seen
        if reshaped and opened.other_shape is not None:
            seen = _seen_after(opened.other_shape)
        start = time.perf_counter_ns()
        call = opened.connect()
        result = call()
        first_ms = (time.perf_counter_ns() - start) / 1e6
        sitting.cold_ms = first_ms if seen == "nothing" else None
        sitting.new_shape_ms = first_ms if seen == "other shapes" else None
        if len(series.sittings) == 1:
            series.remark = contestant.examine(result)
        del result
        sitting.warm_up = _warm_up(call, plan=plan, progress=progress)
        return [Player(opened, call, series)]
    return []


def _seen_after(other_shape: Call) -> Seen:
    """Calls a session with another shape and returns what it has seen then.

    The user did not request that shape, so the session may refuse it.
    """
    try:
        other_shape()
    except Exception:
        return "refused shapes"
    return "other shapes"


def _warm_up(call: Call, *, plan: Plan, progress: _Progress) -> WarmUp:
    start = time.perf_counter()
    num_calls = 0
    medians: list[float] = []
    while not statistics.is_steady(medians) and time.perf_counter() - start < plan.warmup_s:
        durations: Turn = []
        _turn(call, seconds=plan.window_s, min_calls=3, durations=durations)
        num_calls += len(durations)
        medians.append(float(np.median(durations)))
        progress.tick()
    return WarmUp(num_calls, time.perf_counter() - start, statistics.is_steady(medians))


def _turn(call: Call, *, seconds: float, min_calls: int, durations: Turn) -> None:
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


@contextmanager
def failure_of(series: Series) -> Iterator[list[str]]:
    """Suppresses and records an exception of a contestant's own call; yields a list that then contains its reason."""
    failed: list[str] = []
    try:
        yield failed
    except Exception as error:
        series.failure = reason_of(error)
        failed.append(series.failure)


class _Progress:
    """Reports the seconds since the last tick to a progress bar."""

    def __init__(self, advance: Callable[[float], object]) -> None:
        self._advance = advance
        self._last = time.perf_counter()

    def tick(self) -> None:
        now = time.perf_counter()
        self._advance(now - self._last)
        self._last = now


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disables garbage collection, which during a call is a cost of this process, not of the contestant."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
