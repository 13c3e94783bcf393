"""Dynamic batching. Knows nothing of HTTP or ONNX: groups requests, calls one function, hands back results.

Requests wait in one bounded queue, oldest first. As soon as a runner is free, it takes the oldest request with others
of the same key, up to the batch size or the runner's fair share of all waiting and running rows: a larger batch would
leave the other runners small batches, whose rows cost more. So batches grow by themselves while requests wait for a
runner. With `max_queue_delay_s` a free runner waits for more requests, and takes up to the batch size.

The event loop starts free runners. A runner that has finished takes the next batch itself, since it would be idle until
a busy event loop starts it. No more runners work than the event loop can feed: if a request computes for less time than
the event loop needs to read it, a second runner would only compete with the loop for the core and the interpreter's
lock.

A batch that is expected to be short, judged by earlier batches of its size, runs in the event loop itself while no
runner works: a thread costs such a batch more than it gains. It runs at the end of the loop's turn, with all requests
read in that turn. If such a batch hangs, it stops the server and not only a runner.
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

from runtime.serving.batching.batches import Batch, Done, Item, Ran, Result, Waiting, bucket_sizes, first_batch
from runtime.serving.batching.pace import ALL_IN_THREADS, LoopShare, Pace
from runtime.serving.errors import ExpiredError, OverloadError, UnavailableError


@dataclass(frozen=True)
class BatchLimits:
    """How requests are grouped."""

    max_batch_size: int = 32
    """Rows."""
    max_queue_delay_s: float = 0.0
    """How long the oldest request waits for others although a runner is free."""
    max_queue_size: int = 256
    """Requests that may wait; further ones are refused."""
    runners: int = 1
    """Batches that may run at the same time, each in a thread."""


class Batcher(Generic[Item, Result]):
    """Calls `run(items, size)` with the items of one batch, and gives each submitter its result.

    `size` is the batch's rows rounded up to one of `bucket_sizes`. A batch that fails is run again item by item, so
    that only the item at fault fails.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], int], Sequence[Result]],
        *,
        limits: BatchLimits,
        name: str,
        loop_share: LoopShare = ALL_IN_THREADS,
    ) -> None:
        """Args: loop_share: which batches run in the event loop, none by default. Set it only if the time of `run`
        depends on `size` alone.
        """
        self.limits = limits
        self.sizes = bucket_sizes(limits.max_batch_size)
        self._run = run
        self._loop_share = loop_share
        # Protects all that both the event loop and the runners' threads change: the queue, the free runners, the pace.
        self._lock = threading.Lock()
        self._waiting: deque[Waiting[Item, Result]] = deque()
        self._waiting_rows = 0
        self._running_rows = 0
        self._num_running = 0
        self._pace = Pace(runners=limits.runners, short_s=loop_share.short_s)
        # Number of batches taken whose results have not been handed out.
        self._unanswered = 0
        self._is_closed = False
        self._threads = ThreadPoolExecutor(limits.runners, thread_name_prefix=name)
        self._wake_up: asyncio.TimerHandle | None = None
        # Whether the event loop will run a batch at the end of its turn.
        self._is_scheduled = False
        self._idle = asyncio.Event()

    def enter(
        self,
        item: Item,
        tell: Callable[[Done[Result] | Exception], None],
        *,
        size: int = 1,
        key: Hashable = None,
        timeout_s: float | None = None,
    ) -> Callable[[], None]:
        """Queue an item; returns a function that withdraws it. Both must be called in the event loop.

        Args: tell: called once in the event loop, unless the item is withdrawn, with the result, the exception that
            `run` raises for it, or ExpiredError if it waited too long. It must not raise. size: the item's rows, at
            most `max_batch_size`. key: only items with equal keys share a batch. timeout_s: how long it may wait in the
            queue.
        Raises: OverloadError: the queue is full. UnavailableError: this batcher is closed.
        """
        assert 1 <= size <= self.limits.max_batch_size
        if self._is_closed:
            raise UnavailableError("it is being unloaded")
        since_s = time.monotonic()
        deadline_s = math.inf if timeout_s is None else since_s + timeout_s
        entry: Waiting[Item, Result] = Waiting(item, tell, size, key, since_s, deadline_s)
        with self._lock:
            if len(self._waiting) >= self.limits.max_queue_size and self._num_running >= self._pace.num_fed:
                raise OverloadError(f"too many requests: {len(self._waiting)} are waiting already")
            self._waiting.append(entry)
            self._waiting_rows += size
        if timeout_s is not None:
            entry.timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, entry)
        withdraw = partial(self._withdraw, entry)
        try:
            self._start()
        except BaseException:
            # The caller gets this exception, so `tell` must not be called.
            withdraw()
            raise
        return withdraw

    async def close(self) -> None:
        """Accept no more items, and finish those that there are."""
        self._is_closed = True
        self._start()
        # In this order: a batch taken between the two checks already counts as unanswered.
        while self._waiting or self._unanswered:
            self._idle.clear()
            await self._idle.wait()
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        """Start every batch that is due, and schedule the next call for the time when another one is."""
        # If more requests wait than are allowed, a runner starts now.
        if self._is_scheduled and len(self._waiting) <= self.limits.max_queue_size:
            return
        loop = asyncio.get_running_loop()
        with self._lock:
            while batch := self._due_batch():
                if self._is_for_the_loop(batch) and not self._is_scheduled:
                    loop.call_soon(self._run_here)
                    self._is_scheduled = True
                    return
                self._threads.submit(self._work, self._taken(batch), loop)
            if not self._waiting or self._num_running >= self._pace.num_fed:
                return
            wait_s = max(0.0, self._due_s() - time.monotonic())
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = loop.call_later(wait_s, self._start)

    def _run_here(self) -> None:
        """Run the due batch in the event loop, unless requests that arrived since then made it one for a runner."""
        self._is_scheduled = False
        with self._lock:
            due = self._due_batch()
            batch = self._taken(due) if due and self._is_for_the_loop(due) else None
        if batch is None:
            self._start()
            return
        ran = self._run_batch(batch)
        with self._lock:
            self._set_free(ran)
        # Requests that still wait run after all other work of the loop.
        self._hand_out(ran)

    def _work(self, batch: Batch[Item, Result], loop: asyncio.AbstractEventLoop) -> None:
        """Run a batch in a runner's thread, then every batch that is due when the previous one is done."""
        following: Batch[Item, Result] | None = batch
        while following is not None:
            ran = self._run_batch(following)
            # Before the event loop is notified, so that the loop checks again what was not due here.
            following = self._next(ran)
            loop.call_soon_threadsafe(self._hand_out, ran)

    def _run_batch(self, batch: Batch[Item, Result]) -> Ran[Item, Result]:
        start_s, start_cpu_s = time.monotonic(), time.thread_time()
        outcomes = self._outcomes(batch)
        cpu_s, end_s = time.thread_time() - start_cpu_s, time.monotonic()
        return Ran(batch, outcomes, since_taken_s=end_s - batch.started_s, took_s=end_s - start_s, cpu_s=cpu_s)

    def _next(self, ran: Ran[Item, Result]) -> Batch[Item, Result] | None:
        """Set a runner free, and take the next batch for it."""
        with self._lock:
            self._set_free(ran)
            due = self._due_batch()
            if due is None or (self._loop_share.ends_runs and self._is_for_the_loop(due)):
                return None
            return self._taken(due)

    def _set_free(self, ran: Ran[Item, Result]) -> None:
        """Release the runner of this batch. The lock is held."""
        self._num_running -= 1
        self._running_rows -= ran.batch.rows
        num_items = len(ran.batch.entries)
        self._pace.note(size=ran.batch.size, num_items=num_items, took_s=ran.took_s, cpu_s=ran.cpu_s)

    def _is_for_the_loop(self, batch: Batch[Item, Result]) -> bool:
        """Whether a batch is short, and no runner would work at the same time. The lock is held."""
        is_alone = self._num_running == 0 and (self._pace.num_fed == 1 or batch.rows == self._waiting_rows)
        return is_alone and self._pace.is_short(batch.size)

    def _due_s(self) -> float:
        """When the oldest entry must run even if the batch is not full. The lock is held."""
        return self._waiting[0].since_s + (0.0 if self._is_closed else self.limits.max_queue_delay_s)

    def _due_batch(self) -> Batch[Item, Result] | None:
        """The batch for a free runner: the oldest entry with others of its key, up to the fair share. The lock is held.

        Entries past their deadline are left to `_expire`. None if all runners that can be fed work, or nothing is due.
        """
        if not self._waiting or self._num_running >= self._pace.num_fed:
            return None
        now_s = time.monotonic()
        if self._waiting_rows < self.limits.max_batch_size and self._due_s() > now_s:
            return None
        alive = [entry for entry in self._waiting if entry.deadline_s > now_s]
        if not alive:
            return None
        most = self.limits.max_batch_size
        if self.limits.max_queue_delay_s == 0:
            share = math.ceil((self._waiting_rows + self._running_rows) / self._pace.num_fed)
            most = min(most, max(share, alive[0].size))
        return first_batch(alive, most=most, sizes=self.sizes)

    def _taken(self, batch: Batch[Item, Result]) -> Batch[Item, Result]:
        """Take a batch out of the queue to run it. The lock is held."""
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

    def _hand_out(self, ran: Ran[Item, Result]) -> None:
        with self._lock:
            self._unanswered -= 1
        for entry, outcome in zip(ran.batch.entries, ran.outcomes, strict=True):
            if isinstance(outcome, Exception):
                entry.hear(outcome)
            else:
                entry.hear(Done(outcome, ran.batch.started_s - entry.since_s, ran.since_taken_s))
        self._idle.set()
        # For entries that were not due when the runner checked, or have arrived since.
        self._start()

    def _expire(self, entry: Waiting[Item, Result]) -> None:
        if self._forget(entry):
            entry.hear(ExpiredError("the request's timeout expired while it waited"))

    def _withdraw(self, entry: Waiting[Item, Result]) -> None:
        self._forget(entry)
        entry.end()

    def _forget(self, entry: Waiting[Item, Result]) -> bool:
        """Take an entry out of the queue; returns whether it was still there."""
        with self._lock:
            if entry not in self._waiting:
                return False
            self._waiting.remove(entry)
            self._waiting_rows -= entry.size
        self._idle.set()
        return True
