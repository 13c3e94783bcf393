"""The timing of long runs: periodic checkpoints, and stopping on request or at a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from searcher.running.interrupt import Interrupt, Stopped
from searcher.running.run_folder import RunFolder


@dataclass(frozen=True)
class Pace:
    """When checkpoints are written and when a run must stop. It changes no result: a run may resume with another."""

    checkpoint_minutes: float = 10.0
    """Time between checkpoints within an epoch; one is also written at the end of every epoch."""
    deadline: float = math.inf
    """The time to stop, in seconds on the clock of `now`."""
    now: Callable[[], float] = time.monotonic
    """A clock: seconds since an arbitrary moment."""


def pace_of(*, checkpoint_minutes: float, max_hours: float | None) -> Pace:
    """Returns a pace whose deadline is `max_hours` from now; None for no deadline."""
    deadline = math.inf if max_hours is None else time.monotonic() + 3600 * max_hours
    return Pace(checkpoint_minutes, deadline)


class Checkpointer:
    """Writes a run's checkpoints; a loop calls `between_steps` after each step and `save` at the end of an epoch."""

    def __init__(
        self, state: Callable[[], dict[str, Any]], *, folder: RunFolder, interrupt: Interrupt, pace: Pace
    ) -> None:
        """state: returns the contents of a checkpoint."""
        self._state = state
        self._folder = folder
        self._interrupt = interrupt
        self._pace = pace
        self._saved = pace.now()

    def between_steps(self) -> None:
        """Write a checkpoint if one is due. Raises: Stopped: the run was asked to stop, or its time is over."""
        now = self._pace.now()
        # A reason on one rank applies to all ranks, so that they save and stop together.
        asked, out_of_time, due = self._folder.world.any(
            [
                self._interrupt.requested,
                now >= self._pace.deadline,
                now >= self._saved + 60 * self._pace.checkpoint_minutes,
            ]
        )
        if asked or out_of_time or due:
            self.save()
        if asked or out_of_time:
            raise Stopped(out_of_time=not asked)

    def save(self) -> None:
        self._folder.save(self._state())
        self._saved = self._pace.now()
