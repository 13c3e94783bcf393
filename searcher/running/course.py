"""The updates after every step of a long run: progress bar, checkpoints, number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from searcher.running.pacing import Checkpointer
from searcher.running.progress import Progress
from searcher.running.threads import Threads


@dataclass(frozen=True)
class Course:
    """The parts of a run that its loops update after each step."""

    progress: Progress
    checkpointer: Checkpointer
    threads: Threads

    def step(self, **figures: str) -> None:
        """Records a finished step. figures: for the progress bar. Raises: Stopped: see `Checkpointer.between_steps`."""
        self.progress.step(**figures)
        self.checkpointer.between_steps()
        self.threads.between_steps()

    def take(self, steps: Iterable[object]) -> float | None:
        """Takes all steps and returns their mean time, ms; None if there were none. Raises: Stopped: see `step`."""
        started, count = time.perf_counter(), 0
        for _ in steps:
            self.step()
            count += 1
        return 1e3 * (time.perf_counter() - started) / count if count else None
