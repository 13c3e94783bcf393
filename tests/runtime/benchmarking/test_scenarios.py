import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from runtime.benchmarking.benchmark import Contestant, Opened, Plan, measure
from runtime.benchmarking.samples import Series
from runtime.benchmarking.scenarios import SCENARIOS, Load, arrival_times
from tests.runtime.quiet import in_a_quiet_moment

PLAN = Plan(duration_s=0.4, min_samples=1, sittings=1, warmup_s=0, patience=3)


def _contestant(call: Callable[[], object], name: str = "it") -> Contestant:
    @contextmanager
    def session() -> Iterator[Opened]:
        yield Opened(connect=lambda: call)

    return Contestant(name, session)


def _measured(call: Callable[[], object], load: Load, plan: Plan = PLAN) -> Series:
    (series,) = measure([_contestant(call)], plan=plan, play=load.play()).series
    return series


def _sleep(milliseconds: float) -> Callable[[], None]:
    return lambda: time.sleep(milliseconds / 1e3)


class _Stalling:
    """Answers in 1 ms, but its fiftieth call in 200 ms; one call at a time."""

    def __init__(self) -> None:
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._calls += 1
            time.sleep(0.2 if self._calls == 50 else 0.001)


@pytest.mark.parametrize("concurrency", [1, 8])
@in_a_quiet_moment
def test_calls_that_came_while_a_server_stalled_are_late_too(concurrency: int) -> None:
    load = Load("server", rate_per_s=100, arrivals="constant", concurrency=concurrency)
    samples = np.sort(
        _measured(_Stalling(), load, Plan(duration_s=1, min_samples=1, sittings=1, warmup_s=0)).samples_ms
    )
    assert samples.size == 100
    # In 200 ms of standing still 20 calls came. They waited for what was left of it: 200, 190, 180, … ms.
    late = samples[samples > 20]
    assert 15 <= late.size <= 25
    assert np.median(late) == pytest.approx(110, abs=30)
    # One call after the other, the stall would have been one slow call among fast ones.
    one_by_one = _measured(
        _Stalling(), Load("single-stream"), Plan(duration_s=0.5, min_samples=200, sittings=1, warmup_s=0)
    )
    assert (one_by_one.samples_ms > 20).sum() == 1


@in_a_quiet_moment
def test_latency_counts_from_the_time_a_call_was_due() -> None:
    series = _measured(_sleep(20), Load("server", rate_per_s=100, arrivals="constant"))
    (sitting,) = series.sittings
    # Calls are due every 10 ms and take 20 ms each: the n-th ends 10 n ms late.
    assert np.diff(sitting.turns[0]).mean() / 1e6 == pytest.approx(10, rel=0.2)
    assert sitting.traffic is not None
    assert sitting.traffic.late_s > 0.2


def test_a_server_that_is_fast_enough_answers_at_once() -> None:
    series = _measured(_sleep(2), Load("server", rate_per_s=50))
    assert np.median(series.samples_ms) == pytest.approx(2.2, abs=1)
    assert not np.isinf(series.samples_ms).any()


def test_calls_that_nobody_gets_to_are_lost_and_not_left_out() -> None:
    # 100 calls are due, of which six can be made before patience ends.
    series = _measured(_sleep(200), Load("server", rate_per_s=250, arrivals="constant"))
    assert series.samples_ms.size == 100
    assert np.isinf(series.samples_ms).sum() >= 90
    assert np.isinf(np.median(series.samples_ms))


@in_a_quiet_moment
def test_calls_in_flight_are_as_many_as_told() -> None:
    in_flight, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        time.sleep(0.005)
        with lock:
            in_flight -= 1

    series = _measured(call, Load("offline", concurrency=4))
    assert most == 4
    # Each of four workers makes a call every 5 ms.
    assert series.calls_per_s == pytest.approx(800, rel=0.3)


def test_an_offline_load_makes_a_call_however_late_its_threads_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = threading.Thread.run

    def late(thread: threading.Thread) -> None:
        time.sleep(0.05)
        run(thread)

    monkeypatch.setattr(threading.Thread, "run", late)
    plan = Plan(duration_s=0.02, min_samples=1, sittings=1, warmup_s=0)
    assert _measured(_sleep(1), Load("offline", concurrency=2), plan).samples_ms.size > 0


def test_a_multi_stream_query_waits_for_the_last_of_its_calls() -> None:
    turn = iter(range(1_000_000))
    series = _measured(lambda: time.sleep(0.02 if next(turn) % 4 == 3 else 0.001), Load("multi-stream", streams=4))
    assert np.median(series.samples_ms) == pytest.approx(21, abs=4)


def test_a_call_that_fails_now_and_then_counts_as_lost() -> None:
    turn = iter(range(1_000_000))

    def call() -> None:
        if next(turn) % 2:
            raise ConnectionError("503: too busy")

    series = _measured(call, Load("server", rate_per_s=100, arrivals="constant"))
    assert series.failure is None
    assert series.sittings[0].traffic is not None
    assert series.sittings[0].traffic.failures == {"503: too busy": 20}
    # In their places: what calls in a row have in common is judged by their order.
    assert np.isinf(series.samples_ms).tolist() == [True, False] * 20
    assert series.sittings[0].num_served == 20


def test_the_time_in_which_calls_fail_counts_too() -> None:
    turn = iter(range(1_000_000))

    def call() -> None:
        if next(turn) >= 20:
            raise ConnectionError("503: too busy")

    series = _measured(call, Load("offline", concurrency=2))
    assert series.failure is None
    assert series.failed_calls.keys() == {"503: too busy"}
    # The 20 answers came at once, and none in the rest of 0.4 s.
    assert series.calls_per_s is not None
    assert series.calls_per_s < 20 / 0.3


@pytest.mark.parametrize("load", [Load("multi-stream"), Load("offline"), Load("server", rate_per_s=100)])
def test_a_call_that_always_fails_is_a_failure(load: Load) -> None:
    turn = iter(range(1_000_000))

    def call() -> None:
        if next(turn) > 0:
            raise RuntimeError("out of memory")

    assert _measured(call, load).failure == "out of memory"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_interrupt_keeps_what_was_measured(scenario: Any) -> None:
    main = threading.main_thread()
    turn = iter(range(1_000_000))

    def call() -> None:
        time.sleep(0.002)
        if next(turn) == 30:
            import signal

            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    plan = Plan(duration_s=30, min_samples=1, sittings=1, warmup_s=0)
    start = time.perf_counter()
    load = Load(scenario, rate_per_s=200, concurrency=2, streams=2)
    measurement = measure([_contestant(call)], plan=plan, play=load.play())
    assert time.perf_counter() - start < 5
    assert measurement.is_partial
    assert 10 <= measurement.series[0].samples_ms.size <= 40


def test_an_interrupt_makes_no_call_before_it_is_due() -> None:
    main = threading.main_thread()

    def call() -> None:
        import signal

        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    plan = Plan(duration_s=8, min_samples=1, sittings=1, warmup_s=0)
    load = Load("server", rate_per_s=1, arrivals="constant", concurrency=4)
    measurement = measure([_contestant(call)], plan=plan, play=load.play())
    assert measurement.is_partial
    assert (measurement.series[0].samples_ms >= 0).all()


@in_a_quiet_moment
def test_contestants_under_a_load_are_compared() -> None:
    contestants = [_contestant(_sleep(8), "slow"), _contestant(_sleep(4), "fast")]
    plan = Plan(duration_s=0.5, min_samples=1, sittings=6, warmup_s=0)
    for load in (Load("offline", concurrency=2), Load("multi-stream", streams=2), Load("server", rate_per_s=50)):
        slow, fast = measure(contestants, plan=plan, play=load.play()).series
        speed = fast.speed_relative_to(slow)
        assert speed is not None
        assert speed.value == pytest.approx(2, rel=0.25)


def test_arrivals_by_chance_are_a_poisson_process() -> None:
    times = arrival_times(1000, 20, arrivals="poisson", seed=0, sitting=0)
    gaps = np.diff(times)
    # Gaps of a Poisson process are exponential: their standard deviation is their mean.
    assert gaps.mean() == pytest.approx(0.001, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    counts = np.histogram(times, bins=2000, range=(0, 20))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.1)


def test_arrivals_are_a_function_of_seed_and_sitting() -> None:
    def times(seed: int, sitting: int) -> list[float]:
        return arrival_times(100, 1, arrivals="poisson", seed=seed, sitting=sitting).tolist()

    assert times(0, 0) == times(0, 0)
    assert times(0, 0) != times(0, 1) != times(1, 1)
    assert arrival_times(100, 0.05, arrivals="constant", seed=0, sitting=0).tolist() == [0, 0.01, 0.02, 0.03, 0.04]
