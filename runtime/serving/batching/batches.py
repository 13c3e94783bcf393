"""Waiting requests, and the choice of the next batch among them. Knows nothing of threads."""

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
    """A request's result and its times."""

    result: Result
    queued_s: float
    ran_s: float
    """For the whole batch."""


@dataclass(eq=False, slots=True)
class Waiting(Generic[Item, Result]):
    """A request from arrival to answer."""

    item: Item
    tell: Callable[[Done[Result] | Exception], None]
    size: int
    """Rows."""
    key: Hashable
    """Only requests with equal keys share a batch."""
    since_s: float
    deadline_s: float
    """When it expires."""
    timer: asyncio.TimerHandle | None = None
    is_over: bool = False
    """Whether its outcome was delivered, or it was withdrawn."""

    def hear(self, outcome: Done[Result] | Exception) -> None:
        """Deliver its outcome, unless it is over."""
        if self.is_over:
            return
        self.end()
        try:
            self.tell(outcome)
        except Exception:
            # The other requests of the batch must still get their outcomes.
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
    """Rows to run, including padding."""
    started_s: float = field(default_factory=time.monotonic)


@dataclass
class Ran(Generic[Item, Result]):
    """A batch that has run."""

    batch: Batch[Item, Result]
    outcomes: Sequence[Result | Exception]
    """One for every entry."""
    since_taken_s: float
    """Time since the batch was taken, including the switch to a thread."""
    took_s: float
    cpu_s: float
    """CPU time of the thread."""


def bucket_sizes(max_batch_size: int) -> tuple[int, ...]:
    """The allowed batch sizes: 1, 2, 3, 4, 6, 8, 12, …, so that the model gets few different shapes.

    With one-row requests at most a quarter of them must wait for the next batch, and no row is padding.
    """
    powers = [2**n for n in range(max_batch_size.bit_length())]
    sizes = {size for power in powers for size in (power, power + power // 2) if size <= max_batch_size}
    return tuple(sorted(sizes | {max_batch_size}))


def first_batch(waiting: Sequence[Waiting[Item, Result]], *, most: int, sizes: Sequence[int]) -> Batch[Item, Result]:
    """The first request and the next ones with its key, cut to a bucket size or padded to one.

    Args: waiting: at least one. most: rows, at least those of the first request. sizes: bucket sizes, ascending.
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
