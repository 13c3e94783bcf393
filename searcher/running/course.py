"""What goes with every step of a long run: its progress bar, its checkpoints, its threads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from searcher.running.pacing import Checkpointer
from searcher.running.progress import Progress
from searcher.running.threads import Threads


@dataclass(frozen=True)
class Course:
    """A run under way, as its loops tell of it."""

    progress: Progress
    checkpointer: Checkpointer
    threads: Threads

    def step(self, **figures: str) -> None:
        """A step is done. figures: for the progress bar. Raises: Stopped: see `Checkpointer.between_steps`."""
        self.progress.step(**figures)
        self.checkpointer.between_steps()
        self.threads.between_steps()

    def take(self, steps: Iterable[object]) -> float | None:
        """Take all steps: milliseconds each on the mean, None where there were none. Raises: Stopped: see `step`."""
        started, count = time.perf_counter(), 0
        for _ in steps:
            self.step()
            count += 1
        return 1e3 * (time.perf_counter() - started) / count if count else None
