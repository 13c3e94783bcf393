"""Chooses a run's number of CPU threads: as many as make steps faster, and as there are cores free of other processes.

Threads that split every operation wait for the slowest of them. If another process runs on one of two cores, a step on
two threads takes three to twenty times as long as without it, however the threads wait, but a step on one thread hardly
longer. So a run has one thread for each free core, and no more than make steps faster.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from foundation.allowance import usable_cores
from foundation.files import write_text
from foundation.machine import Activity, Reading
from searcher.running.distributed import World

_CHOICE = "threads.json"
_GLANCE_S, _WINDOW_S = 0.3, 3.0
# Other processes may use this part of a core, and it still counts as free.
_SLACK = 0.25
_QUIET_WINDOWS = 4
# More threads must make a step shorter by a tenth to be worth their cores.
_MOST_RATIO = 0.9
_PAIRS, _PAIRS_S = 6, 5.0
_HOPELESS = 5.0


def free_cores(before: Reading, after: Reading, *, cores: int) -> float | None:
    """Returns the number of cores that other processes and the hypervisor left free; None if it is not known.

    Args: before, after: readings at two moments. cores: number of cores with CPU time for this process. A container's
    quota makes it less than the cores that this process may run on, all of which processes outside also use.
    """
    activity = Activity.between(before, after)
    if activity.others_share is None or activity.steal_share is None:
        return None
    free = after.cores * (1 - activity.others_share - activity.steal_share)
    return min(free, cores - activity.others_in_group)


class Threads:
    """The number of threads of a run, which `between_steps` adjusts every few seconds."""

    def __init__(
        self,
        most: int,
        *,
        cores: int,
        say: Callable[[str], None],
        read: Callable[[], Reading | None] = Reading.take,
        free: float | None = None,
    ) -> None:
        """most: the number that still makes steps faster. cores: that this process may use. say: reports a change to
        the user. free: cores that are free now; None if unknown."""
        self._most = most
        self._cores = cores
        self._say = say
        self._read = read
        self._quiet_windows = 0
        self._before = read() if most > 1 else None
        self.count = most if free is None else self._wanted(free)

    def between_steps(self) -> None:
        """Changes the number of threads if other processes have started or ended."""
        if self._before is None or time.monotonic() < self._before.time_s + _WINDOW_S:
            return
        before, self._before = self._before, self._read()
        free = free_cores(before, self._before, cores=self._cores) if self._before else None
        if free is None:
            return
        wanted = self._wanted(free)
        self._quiet_windows = self._quiet_windows + 1 if wanted > self.count else 0
        # An increase waits, since a machine that is busy now and then is better treated as busy.
        if wanted < self.count or self._quiet_windows >= _QUIET_WINDOWS:
            reason = "other processes are at work" if wanted < self.count else "the machine is quiet again"
            self._set(wanted)
            self._say(f"{reason}: going on with {wanted} thread{'s' if wanted > 1 else ''}")

    def _wanted(self, free: float) -> int:
        return max(1, min(self._most, int(free + _SLACK)))

    def _set(self, count: int) -> None:
        self.count = count
        self._quiet_windows = 0
        torch.set_num_threads(count)


@contextmanager
def threads_for(
    count: int,
    *,
    folder: Path,
    device: torch.device,
    world: World,
    trial: Callable[[], Iterator[object]],
    say: Callable[[str], None],
) -> Iterator[Threads]:
    """Yields the threads of a run: the configured `count`; for 0, as many as are free and make steps faster.

    The fastest number is measured with the steps of `trial` on the cores that are free then, and stored in the run's
    folder if all cores were free. On CUDA, with several ranks, and if $OMP_NUM_THREADS is set, torch's own number is
    used.
    """
    before = torch.get_num_threads()
    cores = usable_cores()
    if count or device.type != "cpu" or world.size > 1 or "OMP_NUM_THREADS" in os.environ:
        yield Threads(count or before, cores=1, say=say, read=lambda: None)
        return
    path = folder / _CHOICE
    free = _free_now(cores)
    most = _written(path)
    if most is None:
        room = cores if free is None else int(free + _SLACK)
        # If no core is free for a second thread, two are assumed to be faster, which they usually are.
        most = best_threads(trial(), most=room) if room > 1 else min(2, cores)
        if room >= cores:  # else the run measures again when it is resumed, and more cores may be free then
            write_text(path, json.dumps({"threads": most}) + "\n")
    threads = Threads(min(most, cores), cores=cores, say=say, free=free)
    torch.set_num_threads(threads.count)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def _written(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["threads"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _free_now(cores: int) -> float | None:
    before = Reading.take()
    time.sleep(_GLANCE_S)
    return free_cores(before, Reading.take(), cores=cores)


def best_threads(steps: Iterator[object], *, most: int) -> int:
    """Returns the number of threads with the fastest steps, found by doubling; 1 if there are too few steps.

    Steps with a number and with its double alternate, since steps may differ. The first pair does not count.
    """
    count = 1
    while 2 * count <= most:
        ratios: list[float] = []
        started = time.perf_counter()
        while len(ratios) <= _PAIRS and (len(ratios) < 3 or time.perf_counter() < started + _PAIRS_S):
            try:
                first, second = (_seconds(steps, threads) for threads in (count, 2 * count))
            except (StopIteration, RuntimeError):
                break
            ratios.append(second / first)
            if ratios[-1] > _HOPELESS:  # another process has started
                break
        if len(ratios) < 3 or statistics.median(ratios[1:]) > _MOST_RATIO:
            break
        count *= 2
    return count


def _seconds(steps: Iterator[object], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    next(steps)
    return time.perf_counter() - started
