"""Shared by commands that run many trainings: how many at a time, where, and for how long. Loads no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundation.command_options import device_option
from searcher.commands.options import jobs_options, pace_options, threads_option, workers_for

if TYPE_CHECKING:
    from searcher.running.jobs import Setting
    from searcher.running.pacing import Pace

EPOCHS_HELP = "Passes over train; with --set min_steps=N an epoch is several where train is small."


@dataclass(frozen=True)
class Trainings:
    """How a command runs its trainings, from its options."""

    jobs: int | None
    executor: str | None
    threads: int | None
    """Of each training; None for the command's default."""
    device: str
    pace: Pace

    @contextmanager
    def setting(self, *, most: int | None = None) -> Iterator[Setting]:
        """Yields the setting of the block's trainings; if the block is stopped, reports how to resume, and exits.

        Args: most: number of trainings to run.
        Raises: as `executors.executor_for` and `device.resolve_device`.
        """
        from searcher.running import device as devices
        from searcher.running.executors import default_jobs

        device = devices.resolve_device(self.device)
        devices.prepare(device)
        num_jobs = self.jobs or default_jobs(device)
        num_jobs = num_jobs if most is None else min(num_jobs, most)
        with workers_for(num_jobs, device=self.device, pace=self.pace, executor=self.executor) as setting:
            yield setting


def trainings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --jobs, --executor, --threads, --max-hours, --checkpoint-minutes, --device, as the parameter trainings."""

    @functools.wraps(command)
    def with_trainings(
        *,
        jobs: int | None,
        executor: str | None,
        threads: int | None,
        checkpoint_minutes: float,
        max_hours: float | None,
        device: str,
        **options: Any,
    ) -> Any:
        from searcher.running.pacing import pace_of

        # --max-hours counts from here.
        pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
        return command(trainings=Trainings(jobs, executor, threads, device, pace), **options)

    return jobs_options(threads_option(pace_options(device_option(with_trainings))))
