"""Work on many files at once, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_WORKERS = 16
"""Each may hold a whole picture unfolded."""


def num_workers() -> int:
    """Threads worth starting: one for each core that this process may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int | None = None
) -> Iterator[_Result]:
    """`map` by several threads, for functions that give the interpreter's lock away, as decoders and hashes do.

    Only a few items are taken ahead of the result that is waited for, so results never pile up.
    Raises: what `function` raises, at its item's turn.
    """
    count = workers or num_workers()
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
