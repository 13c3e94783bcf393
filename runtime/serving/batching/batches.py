"""Requests that wait for their turn, and which of them make the next batch. Knows nothing of threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Done(NamedTuple, Generic[Result]):
    """A request's answer and what it took."""

    result: Result
    queued_s: float
    ran_s: float
    """Of the whole batch."""


@dataclass(eq=False, slots=True)
class Waiting(Generic[Item, Result]):
    """A request from its coming to its answer."""

    item: Item
    tell: Callable[[Done[Result] | Exception], None]
    size: int
    """Rows."""
    key: Hashable
    """Only requests of equal keys share a batch."""
    since_s: float
    deadline_s: float
    """When it is not worth running any more."""
    timer: asyncio.TimerHandle | None = None
    is_over: bool = False
    """Told, or withdrawn."""

    def hear(self, outcome: Done[Result] | Exception) -> None:
        """Tell what became of it, unless it is over."""
        if self.is_over:
            return
        self.end()
        try:
            self.tell(outcome)
        except Exception:
            # The others of the batch are told all the same.
            log.exception("a request's answer was lost")

    def end(self) -> None:
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()


@dataclass
class Batch(Generic[Item, Result]):
    """Requests that run together."""

    entries: Sequence[Waiting[Item, Result]]
    rows: int
    size: int
    """Rows to run, those that fill up included."""
    started_s: float = field(default_factory=time.monotonic)


@dataclass
class Ran(Generic[Item, Result]):
    """A batch that has run."""

    batch: Batch[Item, Result]
    outcomes: Sequence[Result | Exception]
    """Of every entry."""
    since_taken_s: float
    """The way to a thread included."""
    took_s: float
    cpu_s: float
    """CPU time of the thread."""


def bucket_sizes(max_batch_size: int) -> tuple[int, ...]:
    """The sizes that batches have: 1, 2, 3, 4, 6, 8, 12, …, so that few shapes ever reach the model.

    Of requests of one row at most a quarter has to wait for the next batch, and nothing is filled up.
    """
    powers = [2**n for n in range(max_batch_size.bit_length())]
    sizes = {size for power in powers for size in (power, power + power // 2) if size <= max_batch_size}
    return tuple(sorted(sizes | {max_batch_size}))


def first_batch(waiting: Sequence[Waiting[Item, Result]], *, most: int, sizes: Sequence[int]) -> Batch[Item, Result]:
    """The first request and those of its kind that fit with it, cut to a bucket or filled up to one.

    Args: waiting: one at least. most: rows, no fewer than the first one has. sizes: the buckets, in order.
    """
    rows, alike, ends = 0, [entry for entry in waiting if entry.key == waiting[0].key], []
    for entry in alike:
        if rows + entry.size > most:
            break
        rows += entry.size
        ends.append(rows)
    even = max((end for end in ends if end in sizes and 2 * end >= rows), default=None)
    count = len(ends) if even is None else ends.index(even) + 1
    rows = ends[count - 1]
    return Batch(alike[:count], rows, next(size for size in sizes if size >= rows))
