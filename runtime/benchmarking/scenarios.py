"""MLPerf's scenarios, each a way in which calls come. Knows nothing of models or protocols: makes calls and times them.

single-stream  one call after the other; `benchmark.take_turns`
multi-stream   a query of several calls at once, and the next when all of them are answered
offline        all calls are there from the start: as many at a time as there are workers
server         calls come by chance, at a mean rate, whether or not anybody is free

A scheduled call's latency counts from the moment it was due. A server that stalls so pays for every call that came
meanwhile, and not only for the one that it was answering.
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

# Before a call is due its worker stops sleeping, which may last 0.1 ms too long, and looks at the clock instead.
_SLEEPLESS_S = 0.0002
_TICK_S = 0.1
# What a worker whose call failed waits before the next, where none is due.
_BACK_OFF_S = 0.01


@dataclass(frozen=True)
class Load:
    """How calls come."""

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
        """Calls whose answers a latency waits for."""
        return self.streams if self.scenario == "multi-stream" else 1

    def play(self) -> Play:
        """What the contestants do in a sitting under this load."""
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
    """Calls due as soon as they are asked for, until so many seconds after the first: there is one at least."""
    lock = threading.Lock()
    stop_ns: int | None = None

    def due() -> int | None:
        nonlocal stop_ns
        with lock:
            now = time.perf_counter_ns()
            # On a busy machine threads may take all of a short time to start.
            if stop_ns is None:
                stop_ns = now + max(1, int(seconds * 1e9))
            return now if now < stop_ns else None

    return due


def arrival_times(rate_per_s: float, seconds: float, *, arrivals: Arrivals, seed: int, sitting: int) -> np.ndarray:
    """When calls are due, in seconds from the start, in order: [n, n >= 1]."""
    if arrivals == "constant":
        return np.arange(max(1, int(rate_per_s * seconds))) / rate_per_s
    generator = numpy_generator(seed, "arrivals", sitting)
    count = max(1, generator.poisson(rate_per_s * seconds))
    # Given how many come, a Poisson process spreads them evenly.
    return np.sort(generator.uniform(0, seconds, count))


def _connections(player: Player, count: int) -> list[Call]:
    """The player's warm call, and as many more as are needed, each made once."""
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
    """A worker for every call, each making it again and again, until nothing is due any more.

    Args: due: when the next call is to be made, `perf_counter_ns`; None: there is none.
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
        # Other workers need the interpreter, and `sleep` alone gives it away: at the price of 0.05 ms now and then.
        if left_s > _SLEEPLESS_S or not alone:
            time.sleep(min(_TICK_S, max(0.0, left_s - _SLEEPLESS_S)))
