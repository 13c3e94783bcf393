"""MLPerf's scenarios: the patterns in which calls arrive. Knows nothing of models or protocols: makes and times calls.

single-stream  one call after the other; `benchmark.take_turns`
multi-stream   a query of several calls at once; the next query starts when all of them are answered
offline        all calls are due from the start; each worker makes one call at a time
server         calls arrive on a schedule, random at a mean rate or regular, whether or not a worker is free

The latency of a scheduled call counts from the moment it was due. A server that stalls is therefore charged for every
call that arrived meanwhile, not only for the call that it was answering.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from foundation.seeds import numpy_generator
from runtime.benchmarking.benchmark import Call, Plan, Play, Player, failure_of, take_turns
from runtime.benchmarking.samples import Traffic, Turn
from runtime.models.ort_errors import reason_of

Scenario = Literal["single-stream", "multi-stream", "offline", "server"]
Arrivals = Literal["poisson", "constant"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

# This long before a call is due, its worker polls the clock instead of sleeping, which may last 0.1 ms too long.
_SLEEPLESS_S = 0.0002
_TICK_S = 0.1
# How long a worker waits after a failed call if calls have no schedule.
_BACK_OFF_S = 0.01


@dataclass(frozen=True)
class Load:
    """The pattern in which calls arrive."""

    scenario: Scenario = "single-stream"
    streams: int = 8
    """Calls of a multi-stream query."""
    concurrency: int = 1
    """Calls that may be in flight at once, offline and in the server scenario."""
    rate_per_s: float | None = None
    """Calls a second in the server scenario."""
    arrivals: Arrivals = "poisson"
    seed: int = 0

    @property
    def calls_a_query(self) -> int:
        """The number of calls that one latency covers."""
        return self.streams if self.scenario == "multi-stream" else 1

    def play(self) -> Play:
        """Returns the function that makes the calls of a sitting under this load."""
        match self.scenario:
            case "single-stream":
                return take_turns
            case "multi-stream":
                return self._multi_stream
            case "offline":
                return self._offline
            case "server":
                return self._server

    def _multi_stream(
        self, players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]
    ) -> None:
        for player in players:
            durations: Turn = []
            player.sitting.turns.append(durations)
            with failure_of(player.series), ThreadPoolExecutor(self.streams) as pool:
                calls = _connections(player, self.streams)
                min_samples = plan.min_samples * seconds / plan.duration_s
                start = time.perf_counter()
                while (elapsed_s := time.perf_counter() - start) < seconds or (
                    len(durations) < min_samples and elapsed_s < seconds * plan.patience
                ):
                    began = time.perf_counter_ns()
                    for _ in pool.map(lambda call: call(), calls):
                        pass
                    durations.append(time.perf_counter_ns() - began)
                    tick()

    def _offline(self, players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]) -> None:
        for player in players:
            with failure_of(player.series):
                calls = _connections(player, self.concurrency)
                _serve(player, calls, _at_once(seconds), Traffic(by_schedule=False), tick=tick)

    def _server(self, players: Sequence[Player], *, seconds: float, plan: Plan, tick: Callable[[], object]) -> None:
        assert self.rate_per_s is not None
        for player in players:
            with failure_of(player.series):
                calls = _connections(player, self.concurrency)
                times_s = arrival_times(
                    self.rate_per_s,
                    seconds,
                    arrivals=self.arrivals,
                    seed=self.seed,
                    sitting=len(player.series.sittings),
                )
                traffic = Traffic(by_schedule=True)
                start_ns = time.perf_counter_ns()
                schedule = iter((start_ns + times_s * 1e9).astype(np.int64).tolist())
                give_up_ns = start_ns + int(seconds * plan.patience * 1e9)
                lock = threading.Lock()

                def due(
                    schedule: Iterator[int] = schedule, lock: threading.Lock = lock, give_up_ns: int = give_up_ns
                ) -> int | None:
                    with lock:
                        return next(schedule, None) if time.perf_counter_ns() < give_up_ns else None

                _serve(player, calls, due, traffic, tick=tick)
                traffic.unserved = sum(1 for _ in schedule)


def _at_once(seconds: float) -> Callable[[], int | None]:
    """Returns a `due` for calls that are due immediately, until `seconds` after the first; there is at least one."""
    lock = threading.Lock()
    stop_ns: int | None = None

    def due() -> int | None:
        nonlocal stop_ns
        with lock:
            now = time.perf_counter_ns()
            # Counted from the first call: on a busy machine, starting the threads may take all of a short time.
            if stop_ns is None:
                stop_ns = now + max(1, int(seconds * 1e9))
            return now if now < stop_ns else None

    return due


def arrival_times(rate_per_s: float, seconds: float, *, arrivals: Arrivals, seed: int, sitting: int) -> np.ndarray:
    """Returns when calls are due, in seconds from the start, in order: [n, n >= 1]."""
    if arrivals == "constant":
        return np.arange(max(1, int(rate_per_s * seconds))) / rate_per_s
    generator = numpy_generator(seed, "arrivals", sitting)
    count = max(1, generator.poisson(rate_per_s * seconds))
    # Given their number, the arrivals of a Poisson process are distributed uniformly.
    return np.sort(generator.uniform(0, seconds, count))


def _connections(player: Player, count: int) -> list[Call]:
    """Returns `count` calls: the player's warm call, and new calls, each made once."""
    more = [player.opened.connect() for _ in range(count - 1)]
    for call in more:
        call()
    return [player.call, *more]


def _serve(
    player: Player,
    calls: Sequence[Call],
    due: Callable[[], int | None],
    traffic: Traffic,
    *,
    tick: Callable[[], object],
) -> None:
    """Runs a worker for each of `calls`, which repeats its call until no more calls are due.

    Args: due: returns when the next call is due, `perf_counter_ns`, or None if there is none.
    """
    durations: Turn = []
    player.sitting.turns.append(durations)
    player.sitting.traffic = traffic
    stopped = threading.Event()
    lock = threading.Lock()
    start_ns = time.perf_counter_ns()

    def work(call: Call) -> None:
        while not stopped.is_set() and (due_ns := due()) is not None:
            _wait_until(due_ns, stopped, alone=len(calls) == 1)
            if stopped.is_set():
                return
            began_ns = time.perf_counter_ns()
            try:
                call()
            except Exception as error:
                ended_ns, reason = time.perf_counter_ns(), reason_of(error)
                with lock:
                    durations.append(math.inf)
                    traffic.seconds = max(traffic.seconds, (ended_ns - start_ns) / 1e9)
                    traffic.failures[reason] = traffic.failures.get(reason, 0) + 1
                if not traffic.by_schedule:
                    stopped.wait(_BACK_OFF_S)
                continue
            ended_ns = time.perf_counter_ns()
            with lock:
                durations.append(ended_ns - due_ns)
                traffic.seconds = max(traffic.seconds, (ended_ns - start_ns) / 1e9)
                traffic.late_s = max(traffic.late_s, (began_ns - due_ns) / 1e9)

    workers = [threading.Thread(target=work, args=(call,), daemon=True) for call in calls]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():
                worker.join(_TICK_S)
                tick()
    finally:
        stopped.set()
        for worker in workers:
            worker.join()
    if traffic.failures and not player.sitting.num_served:
        raise RuntimeError(next(iter(traffic.failures)))


def _wait_until(due_ns: int, stopped: threading.Event, *, alone: bool) -> None:
    while not stopped.is_set() and (left_s := (due_ns - time.perf_counter_ns()) / 1e9) > 0:
        # Other workers need the interpreter lock, which only `sleep` releases; that costs 0.05 ms now and then.
        if left_s > _SLEEPLESS_S or not alone:
            time.sleep(min(_TICK_S, max(0.0, left_s - _SLEEPLESS_S)))
