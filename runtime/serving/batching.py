"""Dynamic batching. Knows nothing of HTTP or ONNX: groups requests, calls one function, hands back results.

Requests wait in one bounded queue, oldest first. As soon as a runner is free, the oldest one is taken with as many of
its kind as a batch holds, or as are a runner's fair share of all that are in hand: what one takes beyond that leaves
the others small batches, whose rows cost more. While requests wait for a runner, batches so grow by themselves.
`max_queue_delay_s` makes a free runner wait for company, and take as much of it as a batch holds.

The event loop starts runners that are free; one that has finished takes the next batch itself, for a busy event loop
would let it stand idle meanwhile. No more runners work than the event loop can feed: where a request computes for less
time than the event loop takes to bring it, a second one would only take the core and the interpreter's lock from it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic

from runtime.serving.batches import Batch, Done, Item, Result, Waiting, bucket_sizes, first_batch
from runtime.serving.errors import ExpiredError, OverloadError, UnavailableError

# About what the event loop takes for a request beside a busy runner. On two cores of an AMD EPYC a second runner costs
# a model of 0.11 ms a tenth of its rate, and gives one of 0.24 ms a quarter more.
_FEEDING_S = 0.12e-3
# Weight of the newest item in the moving average of what one computes. Of items, not of batches: a lone one takes
# several times as long as one among many, and says little of what a loaded server spends.
_SMOOTHING = 0.02


@dataclass(frozen=True)
class BatchLimits:
    """How requests are grouped."""

    max_batch_size: int = 32
    """Rows."""
    max_queue_delay_s: float = 0.0
    """How long the oldest request waits for others although a runner is free."""
    max_queue_size: int = 256
    """Requests that may wait; the next one is refused."""
    runners: int = 1
    """Batches that may run at the same time, each in a thread."""


class Batcher(Generic[Item, Result]):
    """Calls `run(items, size)` in a thread with the items of one batch, and gives each submitter its result.

    `size` is the batch's rows filled up to one of `bucket_sizes`. A batch that fails is run again item by item, so that
    only the item at fault fails.
    """

    def __init__(
        self, run: Callable[[Sequence[Item], int], Sequence[Result]], *, limits: BatchLimits, name: str
    ) -> None:
        self.limits = limits
        self.sizes = bucket_sizes(limits.max_batch_size)
        self._run = run
        # Of all that the event loop and the runners' threads change: the queue, the free runners, the average.
        self._lock = threading.Lock()
        self._waiting: deque[Waiting[Item, Result]] = deque()
        self._waiting_rows = 0
        self._running_rows = 0
        self._num_running = 0
        # CPU time of the runner's thread, which waiting for a core or the interpreter's lock does not lengthen.
        self._item_cpu_s: float | None = None
        # Runners that would not wait for the event loop.
        self._num_fed = limits.runners
        # Batches taken whose results are not handed out.
        self._unanswered = 0
        self._is_closed = False
        self._threads = ThreadPoolExecutor(limits.runners, thread_name_prefix=name)
        self._wake_up: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def enter(
        self,
        item: Item,
        tell: Callable[[Done[Result] | Exception], None],
        *,
        size: int = 1,
        key: Hashable = None,
        timeout_s: float | None = None,
    ) -> Callable[[], None]:
        """Queue an item; gives a function that withdraws it. Both are called in the event loop.

        Args: tell: hears once what became of the item, in the event loop, unless it was withdrawn: a result, whatever
            `run` raises for it, or ExpiredError, if its turn did not come in time. It raises nothing. size: the item's
            rows, at most `max_batch_size`. key: only items of equal keys share a batch. timeout_s: how long it may wait
            for its turn.
        Raises: OverloadError: the queue is full. UnavailableError: this batcher is closed.
        """
        assert 1 <= size <= self.limits.max_batch_size
        if self._is_closed:
            raise UnavailableError("it is being unloaded")
        since_s = time.monotonic()
        deadline_s = math.inf if timeout_s is None else since_s + timeout_s
        entry: Waiting[Item, Result] = Waiting(item, tell, size, key, since_s, deadline_s)
        with self._lock:
            if len(self._waiting) >= self.limits.max_queue_size and self._num_running >= self._num_fed:
                raise OverloadError(f"too many requests: {len(self._waiting)} are waiting already")
            self._waiting.append(entry)
            self._waiting_rows += size
        if timeout_s is not None:
            entry.timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, entry)
        withdraw = partial(self._withdraw, entry)
        try:
            self._start()
        except BaseException:
            # Who is told so here is told nothing more.
            withdraw()
            raise
        return withdraw

    async def close(self) -> None:
        """Take nothing more, finish what there is."""
        self._is_closed = True
        self._start()
        # In this order: a batch that is taken meanwhile is unanswered by then.
        while self._waiting or self._unanswered:
            self._idle.clear()
            await self._idle.wait()
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        """Start a free runner on every batch that is due, and come back when the next one is."""
        with self._lock:
            while batch := self._take_due():
                self._threads.submit(self._work, batch, asyncio.get_running_loop())
            if not self._waiting or self._num_running >= self._num_fed:
                return
            wait_s = max(0.0, self._due_s() - time.monotonic())
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = asyncio.get_running_loop().call_later(wait_s, self._start)

    def _work(self, batch: Batch[Item, Result], loop: asyncio.AbstractEventLoop) -> None:
        """In a runner's thread: this batch, and every one that is due when it is done."""
        following: Batch[Item, Result] | None = batch
        while following is not None:
            following = self._run_batch(following, loop)

    def _run_batch(self, batch: Batch[Item, Result], loop: asyncio.AbstractEventLoop) -> Batch[Item, Result] | None:
        """Run a batch and have its outcomes handed out; gives what the runner goes on with, None if it is free."""
        start_s = time.thread_time()
        outcomes = self._outcomes(batch)
        item_cpu_s = (time.thread_time() - start_s) / len(batch.entries)
        ran_s = time.monotonic() - batch.started_s
        # Before the event loop hears of it, so that it looks again at what was not due here.
        following = self._next(batch, item_cpu_s)
        loop.call_soon_threadsafe(self._hand_out, batch, outcomes, ran_s)
        return following

    def _next(self, done: Batch[Item, Result], item_cpu_s: float) -> Batch[Item, Result] | None:
        """Set a runner free, and take the next batch for it. Args: item_cpu_s: what the last computed for an item."""
        with self._lock:
            self._num_running -= 1
            self._running_rows -= done.rows
            before = item_cpu_s if self._item_cpu_s is None else self._item_cpu_s
            self._item_cpu_s = item_cpu_s + (1 - _SMOOTHING) ** len(done.entries) * (before - item_cpu_s)
            self._num_fed = min(self.limits.runners, max(1, round(self._item_cpu_s / _FEEDING_S)))
            return self._take_due()

    def _due_s(self) -> float:
        """When the oldest entry is to run even without company. The lock is held."""
        return self._waiting[0].since_s + (0.0 if self._is_closed else self.limits.max_queue_delay_s)

    def _take_due(self) -> Batch[Item, Result] | None:
        """A batch for a free runner: the oldest entry with a fair share of its kind. The lock is held.

        Entries past their deadline are left to `_expire`. None if no runner is free and fed, or nothing is due.
        """
        if not self._waiting or self._num_running >= self._num_fed:
            return None
        now_s = time.monotonic()
        if self._waiting_rows < self.limits.max_batch_size and self._due_s() > now_s:
            return None
        alive = [entry for entry in self._waiting if entry.deadline_s > now_s]
        if not alive:
            return None
        most = self.limits.max_batch_size
        if self.limits.max_queue_delay_s == 0:
            share = math.ceil((self._waiting_rows + self._running_rows) / self._num_fed)
            most = min(most, max(share, alive[0].size))
        batch = first_batch(alive, most=most, sizes=self.sizes)
        for entry in batch.entries:
            self._waiting.remove(entry)
        self._num_running += 1
        self._waiting_rows -= batch.rows
        self._running_rows += batch.rows
        self._unanswered += 1
        return batch

    def _outcomes(self, batch: Batch[Item, Result]) -> list[Result | Exception]:
        """A result or a failure for every entry."""
        try:
            results: list[Result | Exception] = list(self._run([entry.item for entry in batch.entries], batch.size))
            if len(results) != len(batch.entries):
                raise ValueError(f"{len(results)} results of {len(batch.entries)} items")
            return results
        except Exception as error:
            if len(batch.entries) == 1:
                return [error]
        return [self._outcomes(first_batch([entry], most=entry.size, sizes=self.sizes))[0] for entry in batch.entries]

    def _hand_out(self, batch: Batch[Item, Result], outcomes: Sequence[Result | Exception], ran_s: float) -> None:
        with self._lock:
            self._unanswered -= 1
        for entry, outcome in zip(batch.entries, outcomes, strict=True):
            if isinstance(outcome, Exception):
                entry.hear(outcome)
            else:
                entry.hear(Done(outcome, batch.started_s - entry.since_s, ran_s))
        self._idle.set()
        # What was not due yet when the runner looked, or has come since.
        self._start()

    def _expire(self, entry: Waiting[Item, Result]) -> None:
        if self._forget(entry):
            entry.hear(ExpiredError("the request's timeout expired while it waited"))

    def _withdraw(self, entry: Waiting[Item, Result]) -> None:
        self._forget(entry)
        entry.end()

    def _forget(self, entry: Waiting[Item, Result]) -> bool:
        """Take an entry out of the queue; whether it was there still."""
        with self._lock:
            if entry not in self._waiting:
                return False
            self._waiting.remove(entry)
            self._waiting_rows -= entry.size
        self._idle.set()
        return True
