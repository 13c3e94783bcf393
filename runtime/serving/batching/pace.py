"""Measures the time of batches, and derives which of them the event loop runs itself and how many runners it can feed.

Knows nothing of queues or threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# The event loop's approximate time per request while a runner is busy. On two cores of an AMD EPYC, a second runner
# lowers the throughput of a 0.11 ms model by a tenth, and raises that of a 0.24 ms model by a quarter.
_FEEDING_S = 0.12e-3
# Weight of the newest item in the moving average of the compute time per item. The weight is per item, not per batch:
# an item alone takes several times as long as in a large batch, and says little about a loaded server.
_ITEM_WEIGHT = 0.02

# The longest expected time of a batch in the event loop. Switching to a thread and back takes 0.1 ms, but a thread runs
# in parallel with the loop: on two cores with 32 connections, a 0.15 ms model has the same throughput as with threads
# alone if batches of up to 0.25 ms run in the loop, and 11 % less with 0.6 ms. On one core nothing runs in parallel:
# throughput is a fifth higher with 4 and 32 connections, where batches take up to 4 ms, and 8 to 13 % higher for a
# 0.6 ms model.
_SHORT_S = 0.3e-3
_SHORT_ALONE_S = 5e-3
# Weight of the newest batch in the moving average of the time for its size, and the cap on its time in multiples of
# `short_s`. So one batch of twice `short_s` is enough to leave the loop, and after a hang three short ones to return.
_BATCH_WEIGHT = 0.5
_MOST = 4


@dataclass(frozen=True)
class LoopShare:
    """Which batches the event loop runs itself."""

    short_s: float = 0.0
    """Batches that are expected to take less than this, while no runner works."""
    ends_runs: bool = False
    """Also short batches that are due when a runner is done; otherwise the runner continues with them."""


ALL_IN_THREADS = LoopShare()


def loop_share(*, cores: int, on_cpu: bool) -> LoopShare:
    """What is worth running in the event loop. Args: cores: of this process. on_cpu: whether the model runs on CPU."""
    if on_cpu and cores <= 1:
        # Under load a runner always finds a due batch: unless its run is ended, the loop would never run any.
        return LoopShare(_SHORT_ALONE_S, ends_runs=True)
    # Ending runs costs 6 % of the throughput with 4 connections on two cores.
    return LoopShare(_SHORT_S)


class Pace:
    """Moving averages of the times of batches."""

    def __init__(self, *, runners: int, short_s: float) -> None:
        self.num_fed = runners
        """Number of runners that the event loop can keep busy."""
        self._runners = runners
        self._short_s = short_s
        # CPU time of the thread, which excludes waiting for a core or the interpreter's lock.
        self._item_cpu_s: float | None = None
        # Batch size -> wall time, which includes a GPU's work. A row of a large batch says little about a small batch.
        self._batch_s: dict[int, float] = {}

    def note(self, *, size: int, num_items: int, took_s: float, cpu_s: float) -> None:
        """Update the averages with a batch's times."""
        item_cpu_s = cpu_s / num_items
        before = item_cpu_s if self._item_cpu_s is None else self._item_cpu_s
        self._item_cpu_s = item_cpu_s + (1 - _ITEM_WEIGHT) ** num_items * (before - item_cpu_s)
        self.num_fed = min(self._runners, max(1, round(self._item_cpu_s / _FEEDING_S)))
        took_s = min(took_s, _MOST * self._short_s)
        before = self._batch_s.get(size, took_s)
        self._batch_s[size] = before + _BATCH_WEIGHT * (took_s - before)

    def is_short(self, size: int) -> bool:
        """Whether a batch of this size is expected to take less than `short_s`; never before one has run."""
        return self._batch_s.get(size, math.inf) < self._short_s
