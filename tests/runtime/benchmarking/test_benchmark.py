import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from runtime.benchmarking.benchmark import BenchmarkError, Contestant, Opened, Plan, measure
from tests.runtime.quiet import in_a_quiet_moment

QUICK = Plan(duration_s=0.1, min_samples=10, sittings=2, warmup_s=0.05, window_s=0.005, turn_s=0.005, settle_s=0.001)


def _busy(milliseconds: float) -> Callable[[], None]:
    """A call that takes its time without sleeping: a sleeping thread wakes when it suits the scheduler."""

    def call() -> None:
        end = time.perf_counter_ns() + int(milliseconds * 1e6)
        while time.perf_counter_ns() < end:
            pass

    return call


def _always(name: str, call: Callable[[], object]) -> Contestant:
    """A contestant whose sessions are all the same."""

    @contextmanager
    def session() -> Iterator[Opened]:
        yield Opened(connect=lambda: call)

    return Contestant(name, session)


@in_a_quiet_moment
def test_a_known_duration_is_measured() -> None:
    (series,) = measure([_always("busy", _busy(0.5))], plan=QUICK).series
    assert np.median(series.samples_ms) == pytest.approx(0.5, rel=0.1)
    assert series.samples_ms.size >= 10
    assert series.samples_ms.sum() >= 0.09 * 1e3


def _session_with_cold_calls(log: list[str]) -> Contestant:
    """Its first call takes 20 ms, the first of another shape 5 ms more, all others 0.1 ms."""

    @contextmanager
    def session() -> Iterator[Opened]:
        log.append("open")
        seen: set[str] = set()

        def call_of(shape: str) -> Callable[[], None]:
            def call() -> None:
                _busy(0.1 if shape in seen else 5 if seen else 20)()
                seen.add(shape)

            return call

        _busy(2)()
        yield Opened(connect=lambda: call_of("own"), other_shape=call_of("other"))
        log.append("close")

    return Contestant("cold", session)


@in_a_quiet_moment
def test_opening_first_call_and_first_call_of_a_shape_are_reported_apart() -> None:
    log: list[str] = []
    (series,) = measure([_session_with_cold_calls(log)], plan=replace(QUICK, sittings=4)).series
    assert log == ["open", "close"] * 4
    for name, milliseconds in (("open_ms", 2), ("cold_ms", 20), ("new_shape_ms", 5)):
        assert milliseconds <= (series.median_ms(name) or 0) < 2.4 * milliseconds
    assert [sitting.cold_ms is None for sitting in series.sittings] == [False, True, False, True]
    assert np.quantile(series.samples_ms, 0.9) < 5


@in_a_quiet_moment
def test_opening_that_takes_too_long_is_not_repeated_for_ever() -> None:
    @contextmanager
    def slow_session() -> Iterator[Opened]:
        _busy(100)()
        yield Opened(connect=lambda: _busy(0.1))

    plan = Plan(duration_s=0.04, min_samples=1, sittings=10, patience=5, warmup_s=0, turn_s=0.001)
    (series,) = measure([Contestant("slow to open", slow_session)], plan=plan).series
    assert 3 <= len(series.sittings) <= 4
    # The time that is left goes to the last sitting.
    assert series.samples_ms.sum() == pytest.approx(40, rel=0.5)


def test_warm_up_ends_when_the_calls_are_steady() -> None:
    plan = Plan(duration_s=0.01, sittings=1, warmup_s=5, window_s=0.01)
    (series,) = measure([_always("busy", _busy(0.2))], plan=plan).series
    (sitting,) = series.sittings
    assert sitting.warm_up is not None
    assert series.is_steady
    assert sitting.warm_up.seconds < 5


def test_a_call_that_never_gets_steady_ends_the_warm_up_by_its_cap_and_is_told() -> None:
    milliseconds = 0.1

    def slower_and_slower() -> None:
        nonlocal milliseconds
        milliseconds *= 1.05
        _busy(milliseconds)()

    plan = Plan(duration_s=0.01, min_samples=1, sittings=1, warmup_s=0.05, window_s=0.001)
    (series,) = measure([_always("slower", slower_and_slower)], plan=plan).series
    assert not series.is_steady


def test_contestants_take_turns_and_the_order_alternates() -> None:
    calls: list[str] = []
    contestants = [_always(name, lambda name=name: calls.append(name) or _busy(2)()) for name in "AB"]
    plan = Plan(duration_s=0.02, min_samples=4, sittings=1, warmup_s=0, turn_s=0.001, settle_s=0)
    measurement = measure(contestants, plan=plan)
    # One first call each, then turns of one call that is not counted and one that is.
    assert "".join(calls[:2]) == "AB"
    assert "".join(calls[2:18]) == "AABB" + "BBAA" + "AABB" + "BBAA"
    assert [len(turn) for turn in measurement.series[0].sittings[0].turns[:4]] == [1, 1, 1, 1]


def test_what_follows_another_contestant_is_not_counted() -> None:
    last = ""

    def after_the_other(name: str) -> Callable[[], None]:
        def call() -> None:
            nonlocal last
            _busy(3 if name != last else 0.1)()
            last = name

        return call

    contestants = [_always(name, after_the_other(name)) for name in "AB"]
    for series in measure(contestants, plan=QUICK).series:
        assert np.quantile(series.samples_ms, 0.9) < 1


def test_a_slow_call_gets_its_samples_after_the_time_is_over() -> None:
    plan = Plan(duration_s=0.01, min_samples=8, sittings=2, warmup_s=0, turn_s=0.001, patience=50)
    (series,) = measure([_always("slow", _busy(5))], plan=plan).series
    assert series.samples_ms.size == 8


def test_patience_has_an_end() -> None:
    plan = Plan(duration_s=0.01, min_samples=1000, sittings=1, warmup_s=0, turn_s=0.001, patience=2)
    (series,) = measure([_always("slow", _busy(5))], plan=plan).series
    assert 1 <= series.samples_ms.size < 10


@in_a_quiet_moment
def test_twice_the_work_is_half_the_speed() -> None:
    slow, fast = measure(
        [_always("slow", _busy(0.4)), _always("fast", _busy(0.2))], plan=replace(QUICK, duration_s=0.3, sittings=6)
    ).series
    speed = fast.speed_relative_to(slow)
    assert speed is not None
    assert speed.value == pytest.approx(2, rel=0.1)
    assert speed.interval is not None
    assert speed.interval.low < speed.value < speed.interval.high


def test_an_interrupt_keeps_what_was_measured() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        _busy(1)()

    measurement = measure([_always("busy", call)], plan=Plan(duration_s=10, sittings=1, warmup_s=0))
    assert measurement.is_partial
    # One first call, then eighteen samples; the twentieth was interrupted.
    assert measurement.series[0].samples_ms.size == 18


def test_an_interrupt_in_the_first_call_leaves_series_without_samples() -> None:
    def call() -> None:
        raise KeyboardInterrupt

    measurement = measure([_always("a", call), _always("b", call)], plan=QUICK)
    assert measurement.is_partial
    found = [(series.median_ms("cold_ms"), series.samples_ms.size) for series in measurement.series]
    assert found == [(None, 0), (None, 0)]
    assert measurement.series[1].speed_relative_to(measurement.series[0]) is None


def test_a_contestant_that_fails_at_first_is_left_out_and_the_others_are_measured() -> None:
    def call() -> None:
        raise RuntimeError("out of memory\nat line 1 of some file")

    big, small = measure([_always("big", call), _always("small", _busy(0.1))], plan=QUICK).series
    assert big.failure == "out of memory"
    assert big.samples_ms.size == 0
    assert small.failure is None
    assert small.samples_ms.size >= 10


def test_a_contestant_that_fails_later_keeps_its_samples() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise RuntimeError("the device is lost")
        _busy(0.1)()

    plan = replace(QUICK, warmup_s=0)
    flaky, steady = measure([_always("flaky", call), _always("steady", _busy(0.1))], plan=plan).series
    assert flaky.failure == "the device is lost"
    assert 1 <= flaky.samples_ms.size < 20
    assert len(flaky.sittings) == 1
    assert len(steady.sittings) == 2


def test_what_is_to_be_said_of_a_result_is_asked_once() -> None:
    asked: list[object] = []
    contestant = replace(_always("busy", lambda: "a result"), examine=lambda r: asked.append(r) or "says nothing")
    (series,) = measure([contestant], plan=QUICK).series
    assert asked == ["a result"]
    assert series.remark == "says nothing"


def test_the_fixed_loop_is_timed_at_the_head_of_every_sitting() -> None:
    assert len(measure([_always("busy", _busy(0.1))], plan=replace(QUICK, sittings=3)).calibration_ms) == 3


def test_progress_adds_up_to_the_time_spent() -> None:
    told: list[float] = []
    start = time.perf_counter()
    measure([_always("busy", _busy(0.2))], plan=QUICK, advance=told.append)
    assert 0.1 <= sum(told) <= time.perf_counter() - start


def test_garbage_is_collected_again_afterwards() -> None:
    collects: list[bool] = []
    measure([_always("watch", lambda: collects.append(gc.isenabled()))], plan=QUICK)
    assert not any(collects)
    assert gc.isenabled()


@pytest.mark.parametrize("change", [{"duration_s": 0}, {"min_samples": 0}, {"warmup_s": -1}, {"patience": 0.5}])
def test_an_impossible_plan_is_refused(change: dict[str, float]) -> None:
    (name,) = change
    with pytest.raises(BenchmarkError, match=name):
        Plan(**change)  # type: ignore[arg-type]
