"""Waiting for what is told by a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from runtime.serving.batching.batcher import Batcher
from runtime.serving.batching.batches import Done


async def told(begin: Callable[[Callable[[Any], None]], Callable[[], None]]) -> Any:
    """What a function tells that has begun something; an exception is raised. Who is cancelled withdraws."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tell(outcome: Any) -> None:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    withdraw = begin(tell)
    try:
        return await future
    except asyncio.CancelledError:
        withdraw()
        raise


async def submit(batching: Batcher[Any, Any], item: Any, **options: Any) -> Done[Any]:
    """Wait for an item's turn and its result."""
    return await told(lambda tell: batching.enter(item, tell, **options))
