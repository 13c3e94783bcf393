"""Dynamic batching. Knows nothing of HTTP or ONNX: groups requests, calls one function, hands back results.

Requests wait in one bounded queue, oldest first. As soon as a runner is free, the oldest one is taken with as many of
its kind as a batch holds; while they wait for a runner, batches so grow by themselves. `max_queue_delay_s` makes a free
runner wait for company.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from runtime.serving.errors import ExpiredError, OverloadError, UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    """Batches that run at the same time, each in a thread."""


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A request's answer and what it took."""

    result: Result
    queued_s: float
    ran_s: float
    """Of the whole batch."""


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    key: Hashable
    future: asyncio.Future[Done[Result]]
    since_s: float
    timer: asyncio.TimerHandle | None = None


@dataclass
class _Batch(Generic[Item, Result]):
    entries: Sequence[_Waiting[Item, Result]]
    size: int
    """Rows to run, those that fill up included."""
    started_s: float = field(default_factory=time.monotonic)


def bucket_sizes(max_batch_size: int) -> tuple[int, ...]:
    """The sizes that batches have: 1, 2, 3, 4, 6, 8, 12, …, so that few shapes ever reach the model.

    Of requests of one row at most a quarter has to wait for the next batch, and nothing is filled up.
    """
    powers = [2**n for n in range(max_batch_size.bit_length())]
    sizes = {size for power in powers for size in (power, power + power // 2) if size <= max_batch_size}
    return tuple(sorted(sizes | {max_batch_size}))


class Batcher(Generic[Item, Result]):
    """Calls `run(items, size)` in a thread with the items of one batch, and gives each submitter its result.

    `size` is the batch's rows filled up to one of `bucket_sizes`. A batch that fails is run again item by item, so that
    nobody fails of another's request.
    """

    def __init__(
        self, run: Callable[[Sequence[Item], int], Sequence[Result]], *, limits: BatchLimits, name: str
    ) -> None:
        self.limits = limits
        self.sizes = bucket_sizes(limits.max_batch_size)
        self._run = run
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._rows = 0
        self._free = limits.runners
        self._is_closed = False
        self._threads = ThreadPoolExecutor(limits.runners, thread_name_prefix=name)
        self._wake_up: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return self.limits.runners - self._free

    async def submit(
        self, item: Item, *, size: int = 1, key: Hashable = None, timeout_s: float | None = None
    ) -> Done[Result]:
        """Wait for an item's turn and its result.

        Args: size: its rows, at most `max_batch_size`. key: only items of equal keys share a batch. timeout_s: how
            long it may wait for its turn.
        Raises: OverloadError: the queue is full. ExpiredError: its turn did not come in time. UnavailableError: this
            batcher is closed. Whatever `run` raises for this item.
        """
        assert 1 <= size <= self.limits.max_batch_size
        if self._is_closed:
            raise UnavailableError("it is being unloaded")
        if self._free == 0 and len(self._waiting) >= self.limits.max_queue_size:
            raise OverloadError(f"too many requests: {len(self._waiting)} are waiting already")
        loop = asyncio.get_running_loop()
        entry: _Waiting[Item, Result] = _Waiting(item, size, key, loop.create_future(), time.monotonic())
        if timeout_s is not None:
            entry.timer = loop.call_later(timeout_s, self._expire, entry)
        self._waiting.append(entry)
        self._rows += size
        self._release()
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._forget(entry)
            raise

    async def close(self) -> None:
        """Take nothing more, finish what there is."""
        self._is_closed = True
        while self._waiting or self._free < self.limits.runners:
            self._idle.clear()
            await self._idle.wait()
        self._threads.shutdown(wait=False)

    def _release(self) -> None:
        """Start every batch that is due."""
        while self._free and self._waiting:
            remaining_s = self._waiting[0].since_s + self.limits.max_queue_delay_s - time.monotonic()
            if self._rows < self.limits.max_batch_size and remaining_s > 0 and not self._is_closed:
                self._wake_in(remaining_s)
                return
            batch = self._take()
            self._free -= 1
            ran = asyncio.get_running_loop().run_in_executor(self._threads, self._run_batch, batch)
            ran.add_done_callback(partial(self._finish, batch))

    def _wake_in(self, seconds: float) -> None:
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = asyncio.get_running_loop().call_later(seconds, self._release)

    def _take(self) -> _Batch[Item, Result]:
        """The oldest entry and those of its kind that fit, cut to a bucket or filled up to one."""
        key, rows, ends = self._waiting[0].key, 0, []
        alike = [entry for entry in self._waiting if entry.key == key]
        for entry in alike:
            if rows + entry.size > self.limits.max_batch_size:
                break
            rows += entry.size
            ends.append(rows)
        even = max((end for end in ends if end in self.sizes and 2 * end >= rows), default=None)
        count = len(ends) if even is None else ends.index(even) + 1
        taken = alike[:count]
        for entry in taken:
            self._leave(entry)
        size = next(size for size in self.sizes if size >= ends[count - 1])
        return _Batch(taken, size)

    def _run_batch(self, batch: _Batch[Item, Result]) -> list[Result | Exception]:
        """In a thread of its own: nothing here touches the queue."""
        try:
            return list(self._run([entry.item for entry in batch.entries], batch.size))
        except Exception as error:
            if len(batch.entries) == 1:
                return [error]
        alone = [_Batch([entry], next(s for s in self.sizes if s >= entry.size)) for entry in batch.entries]
        return [self._run_batch(one)[0] for one in alone]

    def _finish(self, batch: _Batch[Item, Result], ran: asyncio.Future[list[Result | Exception]]) -> None:
        self._free += 1
        # The runner goes on before answers are handed out.
        self._release()
        ran_s = time.monotonic() - batch.started_s
        for entry, outcome in zip(batch.entries, ran.result(), strict=True):
            if entry.future.done():
                continue
            if isinstance(outcome, Exception):
                entry.future.set_exception(outcome)
            else:
                entry.future.set_result(Done(outcome, batch.started_s - entry.since_s, ran_s))
        self._idle.set()

    def _expire(self, entry: _Waiting[Item, Result]) -> None:
        self._forget(entry)
        if not entry.future.done():
            entry.future.set_exception(ExpiredError("the request's timeout expired while it waited"))

    def _forget(self, entry: _Waiting[Item, Result]) -> None:
        if entry in self._waiting:
            self._leave(entry)
            self._idle.set()

    def _leave(self, entry: _Waiting[Item, Result]) -> None:
        self._waiting.remove(entry)
        self._rows -= entry.size
        if entry.timer is not None:
            entry.timer.cancel()
