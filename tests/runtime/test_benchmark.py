import gc
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from runtime.benchmark import BenchmarkError, Contestant, Plan, measure

QUICK = Plan(duration_s=0.1, min_samples=10, warmup_s=0.05, window_s=0.005, turn_s=0.005, settle_s=0.001)


def _busy(milliseconds: float) -> Callable[[], None]:
    """A call that takes its time without sleeping: a sleeping thread wakes when it suits the scheduler."""

    def call() -> None:
        end = time.perf_counter_ns() + int(milliseconds * 1e6)
        while time.perf_counter_ns() < end:
            pass

    return call


def test_a_known_duration_is_measured() -> None:
    (series,) = measure([Contestant("busy", _busy(0.5))], plan=QUICK).series
    assert np.median(series.samples_ms) == pytest.approx(0.5, rel=0.1)
    assert series.samples_ms.size >= 10
    assert series.samples_ms.sum() >= 0.09 * 1e3


def test_the_first_call_is_reported_apart() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        _busy(20 if calls == 1 else 0.1)()

    (series,) = measure([Contestant("cold", call)], plan=QUICK).series
    assert series.first_ms is not None
    assert series.first_ms >= 20
    assert np.median(series.samples_ms) < 5


def test_warm_up_ends_when_the_calls_are_steady() -> None:
    (series,) = measure([Contestant("busy", _busy(0.2))], plan=Plan(duration_s=0.01, warmup_s=5, window_s=0.01)).series
    assert series.warm_up is not None
    assert series.warm_up.is_steady
    assert series.warm_up.seconds < 5


def test_a_call_that_never_gets_steady_ends_the_warm_up_by_its_cap_and_is_told() -> None:
    milliseconds = 0.1

    def slower_and_slower() -> None:
        nonlocal milliseconds
        milliseconds *= 1.05
        _busy(milliseconds)()

    plan = Plan(duration_s=0.01, min_samples=1, warmup_s=0.05, window_s=0.001)
    (series,) = measure([Contestant("slower", slower_and_slower)], plan=plan).series
    assert series.warm_up is not None
    assert not series.warm_up.is_steady


def test_contestants_take_turns_and_the_order_alternates() -> None:
    calls: list[str] = []
    contestants = [Contestant(name, lambda name=name: calls.append(name) or _busy(2)()) for name in "AB"]
    plan = Plan(duration_s=0.02, min_samples=4, warmup_s=0, turn_s=0.001, settle_s=0)
    measurement = measure(contestants, plan=plan)
    # One first call each, then turns of one call that is not counted and one that is.
    assert "".join(calls[:2]) == "AB"
    assert "".join(calls[2:18]) == "AABB" + "BBAA" + "AABB" + "BBAA"
    assert [len(turn) for turn in measurement.series[0].turns[:4]] == [1, 1, 1, 1]


def test_what_follows_another_contestant_is_not_counted() -> None:
    last = ""

    def after_the_other(name: str) -> Callable[[], None]:
        def call() -> None:
            nonlocal last
            _busy(3 if name != last else 0.1)()
            last = name

        return call

    contestants = [Contestant(name, after_the_other(name)) for name in "AB"]
    for series in measure(contestants, plan=QUICK).series:
        assert np.quantile(series.samples_ms, 0.9) < 1


def test_a_slow_call_gets_its_samples_after_the_time_is_over() -> None:
    plan = Plan(duration_s=0.01, min_samples=8, warmup_s=0, turn_s=0.001, patience=50)
    (series,) = measure([Contestant("slow", _busy(5))], plan=plan).series
    assert series.samples_ms.size == 8


def test_patience_has_an_end() -> None:
    plan = Plan(duration_s=0.01, min_samples=1000, warmup_s=0, turn_s=0.001, patience=2)
    (series,) = measure([Contestant("slow", _busy(5))], plan=plan).series
    assert 1 <= series.samples_ms.size < 10


def test_twice_the_work_is_half_the_speed() -> None:
    slow, fast = measure(
        [Contestant("slow", _busy(0.4)), Contestant("fast", _busy(0.2))], plan=replace(QUICK, duration_s=0.3)
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

    measurement = measure([Contestant("busy", call)], plan=Plan(duration_s=10, warmup_s=0))
    assert measurement.is_partial
    # One first call, then eighteen samples; the twentieth was interrupted.
    assert measurement.series[0].samples_ms.size == 18


def test_an_interrupt_in_the_first_call_leaves_series_without_samples() -> None:
    def call() -> None:
        raise KeyboardInterrupt

    measurement = measure([Contestant("a", call), Contestant("b", call)], plan=QUICK)
    assert measurement.is_partial
    assert [(series.first_ms, series.samples_ms.size) for series in measurement.series] == [(None, 0), (None, 0)]
    assert measurement.series[1].speed_relative_to(measurement.series[0]) is None


def test_a_contestant_that_fails_is_named() -> None:
    def call() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(BenchmarkError, match=r"^big fails: out of memory$"):
        measure([Contestant("big", call)], plan=QUICK)


def test_progress_adds_up_to_the_time_spent() -> None:
    told: list[float] = []
    start = time.perf_counter()
    measure([Contestant("busy", _busy(0.2))], plan=QUICK, advance=told.append)
    assert 0.1 <= sum(told) <= time.perf_counter() - start


def test_garbage_is_collected_again_afterwards() -> None:
    collects: list[bool] = []
    measure([Contestant("watch", lambda: collects.append(gc.isenabled()))], plan=Plan(duration_s=0.01, warmup_s=0))
    assert not any(collects)
    assert gc.isenabled()


@pytest.mark.parametrize("change", [{"duration_s": 0}, {"min_samples": 0}, {"warmup_s": -1}, {"patience": 0.5}])
def test_an_impossible_plan_is_refused(change: dict[str, float]) -> None:
    (name,) = change
    with pytest.raises(BenchmarkError, match=name):
        Plan(**change)  # type: ignore[arg-type]
