"""A function that doubles numbers in place of a model, and batchers of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from runtime.serving.batching.batcher import Batcher, BatchLimits
from tests.runtime.serving.waiting import submit


class Doubler:
    """Doubles numbers, remembers its batches, and waits at a gate that a test may close."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int], size: int) -> list[int]:
        assert self.gate.wait(5)
        self.batches.append((list(items), size))
        if any(item < 0 for item in items):
            raise ValueError(f"negative: {items}")
        return [2 * item for item in items]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, timeout=20))


def batcher(double: Doubler, **limits: Any) -> Batcher[int, int]:
    return Batcher(double, limits=BatchLimits(**limits), name="test")


async def behind_a_blocker(batching: Batcher[int, int], double: Doubler) -> asyncio.Task[Any]:
    """Occupy the only runner until the gate opens."""
    double.gate.clear()
    blocker = asyncio.create_task(submit(batching, 0))
    await asyncio.sleep(0)
    return blocker


async def queued(batching: Batcher[int, int], items: Iterable[int]) -> list[asyncio.Task[Any]]:
    """Submit items, each from a task of its own."""
    tasks = [asyncio.create_task(submit(batching, item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def hold_up_the_event_loop(until: Callable[[], bool]) -> None:
    """Nothing else runs in it until the condition holds, or five seconds are over."""
    stop = time.monotonic() + 5
    while not until() and time.monotonic() < stop:
        time.sleep(0.001)
