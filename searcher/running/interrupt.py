"""Stopping a run from outside without losing anything."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A run was asked to stop, or its time is over; it has written its checkpoint, if it had begun to train."""

    def __init__(self, *, out_of_time: bool = False) -> None:
        self.out_of_time = out_of_time


class Interrupt:
    """A request to stop the run; long loops check it between steps."""

    def __init__(self) -> None:
        self.requested = False
        self.acts_at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a request ends immediately, because a partial result of it cannot be kept.

        Raises: Stopped: the run was asked to stop, in the block or before it.
        """
        self.acts_at_once = True
        try:
            if self.requested:
                raise Stopped
            yield
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self.acts_at_once = False


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Turns Ctrl-C and SIGTERM into a request to stop.

    A second Ctrl-C acts as usual. A second SIGTERM does not: a cluster sends one to every process, and a launcher
    forwards its own.
    """
    interrupt = Interrupt()
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame: FrameType | None) -> None:
        interrupt.requested = True
        if number == signal.SIGINT:
            signal.signal(number, previous[number])
        if interrupt.acts_at_once:
            raise KeyboardInterrupt

    for number in previous:
        signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
