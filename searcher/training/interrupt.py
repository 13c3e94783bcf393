"""Stopping a run from outside without losing anything."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A run was asked to stop, and has written its checkpoint."""


class Interrupt:
    """Whether somebody has asked the run to stop; long loops look at it between steps."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; a second one acts as usual."""
    interrupt = Interrupt()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(_number: int, _frame: FrameType | None) -> None:
        interrupt.requested = True
        restore()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        restore()
