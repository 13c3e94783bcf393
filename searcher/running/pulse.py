"""Signs of life between the processes of a run, so that the loss of one ends the others with one clear line.

gloo reports the loss of a process at once: its connections close. NCCL does not: its kernels wait forever, and the main
thread with them, until NCCL's own watchdog aborts the process with pages of C++ output. So each process increments a
counter in a shared store, and watches the counters of the others. Knows nothing of torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

_PERIOD_S = 1.0
_PATIENCE_S = 20.0
_FAILED = 2


class Store(Protocol):
    """Counters by name, shared by all processes."""

    def add(self, name: str, amount: int) -> int:
        """Adds to a counter, at first 0, and returns it. Raises: RuntimeError: the process with the store is gone."""
        ...


class Pulse:
    """Increments the counter of this process, and watches those of the others.

    Args: store: not used by another thread. patience_s: how long a counter may stay the same, or the store not answer.
    on_loss: ends the process; called once, in the watching thread, with the reason.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        size: int,
        on_loss: Callable[[str], object],
        period_s: float = _PERIOD_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._store = store
        self._rank = rank
        self._on_loss = on_loss
        self._period_s = period_s
        self._patience_s = patience_s
        now = time.monotonic()
        self._answered = now
        self._counts = {other: 0 for other in range(size) if other != rank}
        self._changed = dict.fromkeys(self._counts, now)
        """When the counter of each other process was last seen to change."""
        self._stopping = threading.Event()
        # Two threads, since the store may never answer.
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._count, self._watch)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, leaves: bool) -> None:
        """Stops the watch. leaves: whether to tell the others that this process ends normally, and is not lost."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self._patience_s)
        if leaves and not self._threads[0].is_alive():
            with suppress(RuntimeError):
                self._store.add(_left(self._rank), 1)

    def _count(self) -> None:
        # The process with the store may end a moment before this process does.
        with suppress(RuntimeError):
            while not self._stopping.wait(self._period_s):
                self._store.add(_alive(self._rank), 1)
                for other in list(self._counts):
                    self._look_at(other)
                self._answered = time.monotonic()

    def _look_at(self, other: int) -> None:
        found = self._store.add(_alive(other), 0)
        if found != self._counts[other]:
            self._counts[other], self._changed[other] = found, time.monotonic()
        elif self._store.add(_left(other), 0):
            self._counts.pop(other)
            self._changed.pop(other)

    def _watch(self) -> None:
        while not self._stopping.wait(self._period_s):
            longest = time.monotonic() - self._patience_s
            if self._answered < longest:
                self._lose(f"no answer from the processes' store for {self._patience_s:.0f} s")
            elif lost := [other for other, changed in list(self._changed.items()) if changed < longest]:
                ranks = ", ".join(map(str, lost))
                self._lose(f"no sign of life from process {ranks} for {self._patience_s:.0f} s")

    def _lose(self, reason: str) -> None:
        self._stopping.set()
        self._on_loss(reason)


def leave(message: str | None = None) -> NoReturn:
    """Ends the process immediately, with status 2 and an error line if there is a message.

    Skips all cleanup: an operation on a device that waits for a lost process would never end.
    """
    if message is not None:
        print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_FAILED)


def _alive(rank: int) -> str:
    return f"pulse/{rank}"


def _left(rank: int) -> str:
    return f"pulse/left/{rank}"
