"""What batches take, and what follows from it: which of them the event loop runs itself, and how many runners it feeds.

Knows nothing of queues or threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# About what the event loop takes for a request beside a busy runner. On two cores of an AMD EPYC a second runner costs
# a model of 0.11 ms a tenth of its rate, and gives one of 0.24 ms a quarter more.
_FEEDING_S = 0.12e-3
# Weight of the newest item in the moving average of what one computes. Of items, not of batches: a lone one takes
# several times as long as one among many, and says little of what a loaded server spends.
_ITEM_WEIGHT = 0.02

# The time for which a batch may hold up the event loop. The way to a thread and back takes 0.1 ms, but a thread works
# beside the loop: on two cores, at 32 connections, a model of 0.15 ms answers as many requests a second as with threads
# alone if batches of up to 0.25 ms run in the loop, and 11 % fewer with 0.6 ms. On one core nothing works beside it: a
# fifth more requests at 4 and 32 connections, where batches take up to 4 ms, and 8 to 13 % more of a model of 0.6 ms.
_SHORT_S = 0.3e-3
_SHORT_ALONE_S = 5e-3
# Weight of the newest batch in the moving average of what those of its size take, and the most that it counts for, in
# limits: so one that takes two of them is enough to leave the loop, and after one that hung three good ones to return.
_BATCH_WEIGHT = 0.5
_MOST = 4


@dataclass(frozen=True)
class LoopShare:
    """Which batches the event loop runs itself."""

    short_s: float = 0.0
    """Those that are expected to take less, while no runner works."""
    ends_runs: bool = False
    """Also those that are due when a runner is done; otherwise it goes on with them, beside the loop."""


ALL_IN_THREADS = LoopShare()


def loop_share(*, cores: int, on_cpu: bool) -> LoopShare:
    """What the event loop runs with profit. Args: cores: that this process has. on_cpu: where the model computes."""
    if on_cpu and cores <= 1:
        # Under load a runner always finds something due: without an end of its run the loop would never have its share.
        return LoopShare(_SHORT_ALONE_S, ends_runs=True)
    # To end runs costs 6 % of the requests of 4 connections on two cores.
    return LoopShare(_SHORT_S)


class Pace:
    """Moving averages of what batches take."""

    def __init__(self, *, runners: int, short_s: float) -> None:
        self.num_fed = runners
        """Runners that would not wait for the event loop."""
        self._runners = runners
        self._short_s = short_s
        # CPU time of the thread, which waiting for a core or the interpreter's lock does not lengthen.
        self._item_cpu_s: float | None = None
        # Wall time, which a GPU's work takes too, by the batch's size: a row of a large one says little of a small one.
        self._batch_s: dict[int, float] = {}

    def note(self, *, size: int, num_items: int, took_s: float, cpu_s: float) -> None:
        """Learn what a batch took."""
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
