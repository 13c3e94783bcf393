"""Measuring callables side by side. Knows nothing of models, files or frameworks: opens, calls, times, hands back
samples.

A measurement is a number of sittings. In each, every contestant is opened afresh, called a first time, and warmed up;
then they take turns in rounds, A B, B A, A B, …, each turn a short run of calls. Whatever slows the machine for a while
slows neighbouring turns alike, so a ratio taken round by round stays true on a noisy machine, and turning every other
round about cancels a steady drift. What a session has for life, such as where its memory lies, differs from sitting to
sitting, and so shows in the interval. Where contestants alternate, the first calls of a turn are made and not counted:
they would pay for the other's cold caches and its threads, which spin on for a while.
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
    """Time of calls to sample from each contestant, all sittings together."""
    min_samples: int = 64
    """Samples to take from each contestant even if `duration_s` is over: 64 support a p90."""
    sittings: int = 10
    """How many times to open each contestant afresh; six at least give a ratio its interval."""
    patience: float = 5.0
    """Give up on `min_samples`, and on opening afresh, after this many times `duration_s`."""
    warmup_s: float = 2.0
    """Longest warm-up of a sitting; it ends as soon as three windows' medians lie within 10 %."""
    window_s: float = 0.02
    """Length of a warm-up window, three calls at least."""
    turn_s: float = 0.03
    """Length of a turn, one call at least."""
    settle_s: float = 0.01
    """Length of what is not counted at the head of a turn, one call at least, where contestants alternate."""

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
    """A contestant that is ready."""

    connect: Callable[[], Call]
    """Makes a call; threads that call at the same time each need one of their own."""
    other_shape: Call | None = None
    """The same on inputs of another shape, connecting included: tells a shape's first call from the first of all."""
    is_kept: bool = False
    """Whether it was open before and stays so: there is nothing to be said of opening it."""
    seen: Seen = "nothing"
    """What it was called with before."""


@dataclass(frozen=True)
class Contestant:
    name: str
    open: Callable[[], AbstractContextManager[Opened]]
    """A session of its own, closed on exit."""
    examine: Callable[[object], str | None] = lambda result: None
    """A remark on what a call returns, None if all is well; asked once."""


@dataclass
class Measurement:
    series: tuple[Series, ...]
    calibration_ms: list[float] = field(default_factory=list)
    """What a fixed loop took at the head of every sitting: a machine that is left alone always takes the same."""
    is_partial: bool = False
    """Interrupted: the samples are good, but fewer than planned."""


@dataclass(frozen=True)
class Player:
    """A contestant in a sitting, warm."""

    opened: Opened
    call: Call
    series: Series

    @property
    def sitting(self) -> Sitting:
        return self.series.sittings[-1]


class Play(Protocol):
    """What the contestants do in a sitting, filling it in as they go, so that an interrupt loses nothing."""

    def __call__(
        self, players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]
    ) -> None: ...


def take_turns(players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]) -> None:
    """One call after another, contestant by contestant, `seconds` of turns for each of them."""
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
                # In place before it is filled: what an interrupted turn has measured is kept.
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
    """What is there already is no sitting's garbage; looking through it takes 0.2 s where torch and data are loaded."""
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
    """Opening, first call, warm-up and samples of every contestant, sitting by sitting.

    Ctrl-C ends the measurement early and keeps what was measured; a contestant that fails is left out from then on.

    Args: advance: told the seconds spent since it was last told, to draw progress with.
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
                        # Every other sitting has seen another shape first.
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
    """About how long `measure` takes where opening is quick and the calls get steady soon."""
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
    """The contestant opened, called a first time and warmed up; nothing if that fails."""
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
    """What a session has seen once it was called with another shape, which nobody asked for: it may refuse it."""
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
    """Note what a contestant's own call raises, and go on; yields a list that then holds it."""
    failed: list[str] = []
    try:
        yield failed
    except Exception as error:
        series.failure = reason_of(error)
        failed.append(series.failure)


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
