"""Processes many files in parallel, with results in order: in threads, or in processes for very many files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from foundation.allowance import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_WORKERS = 16
"""Limits memory: each worker may hold a whole decoded picture."""
_FILES_AT_ONCE = 64


def num_workers() -> int:
    """Threads or processes worth starting: one for each core that this process may use."""
    return min(usable_cores(), _MOST_WORKERS)


@dataclass(frozen=True)
class Workers:
    """Parallel threads or processes."""

    executor: Executor
    at_once: int
    """Items sent to a worker together: a message to another process costs as much as a small picture."""


@contextmanager
def thread_pool() -> Iterator[Workers]:
    """Yields threads, for functions that release the GIL most of the time, as decoders of large pictures do."""
    with ThreadPoolExecutor(num_workers()) as pool:
        yield Workers(pool, at_once=1)


@contextmanager
def process_pool() -> Iterator[Workers]:
    """Yields processes, for functions that hold the GIL. Small pictures do: nearly all their time goes to the header.

    Each process takes half a second to start. They are spawned, so functions, items and results must be picklable, and
    a script must start its work under `if __name__ == "__main__"`.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers(), mp_context=context, initializer=begin_process) as pool:
        yield Workers(pool, at_once=_FILES_AT_ONCE)


def in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    workers: Workers | None = None,
    most_at_once: int | None = None,
) -> Iterator[_Result]:
    """A parallel `map` with results in order, by default with its own threads.

    Takes only a few items ahead of the next result, so results do not accumulate in memory.

    Args: most_at_once: the largest number of items sent to a worker together, for large results.
    Raises: what `function` raises, at its item's turn; BrokenExecutor: a process was killed.
    """
    if workers is None:
        with thread_pool() as own:
            yield from in_order(function, items, workers=own)
        return
    at_once = min(workers.at_once, most_at_once or workers.at_once)
    rest = iter(items)
    pending: deque[Future[list[_Result]]] = deque()
    try:
        while batch := list(islice(rest, at_once)):
            pending.append(workers.executor.submit(_mapped, function, batch))
            if len(pending) > 2 * num_workers():
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _mapped(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    return [function(item) for item in items]


def begin_process() -> None:
    """Initializes a worker process: it ignores signals, which its parent handles, and ends with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
