"""How many CPU threads a run computes with: as many as pay, and as other processes leave to it.

Threads that share out every operation wait for the slowest of them. With one more process at work on two cores a step
on two threads takes three to twenty times as long as alone, however the threads wait, and a step on one thread hardly
longer. So a run has a thread for each core that is free, and no more than pay.
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
# Others may take that part of a core without our giving it up.
_SLACK = 0.25
_QUIET_WINDOWS = 4
# More threads must make a step shorter by a tenth to be worth their cores.
_MOST_RATIO = 0.9
_PAIRS, _PAIRS_S = 6, 5.0
_HOPELESS = 5.0


def free_cores(before: Reading, after: Reading, *, cores: int) -> float | None:
    """How many cores other processes and the hypervisor left between two moments; None where the system does not tell.

    cores: that there is CPU time for. With a container's quota they are fewer than the cores this process may run on,
    all of which processes outside of the container use, too.
    """
    activity = Activity.between(before, after)
    if activity.others_share is None or activity.steal_share is None:
        return None
    return min(cores, after.cores * (1 - activity.others_share - activity.steal_share))


class Threads:
    """The number of threads of a run, which `between_steps` looks at every few seconds."""

    def __init__(
        self,
        most: int,
        *,
        cores: int,
        say: Callable[[str], None],
        read: Callable[[], Reading | None] = Reading.take,
        free: float | None = None,
    ) -> None:
        """most: that pay. cores: that this process may use. say: tells a person of a change. free: cores, now."""
        self._most = most
        self._cores = cores
        self._say = say
        self._read = read
        self._quiet_windows = 0
        self._before = read() if most > 1 else None
        self.count = most if free is None else self._wanted(free)

    def between_steps(self) -> None:
        """Take another number of threads where other processes have come or gone."""
        if self._before is None or time.monotonic() < self._before.time_s + _WINDOW_S:
            return
        before, self._before = self._before, self._read()
        free = free_cores(before, self._before, cores=self._cores) if self._before else None
        if free is None:
            return
        wanted = self._wanted(free)
        self._quiet_windows = self._quiet_windows + 1 if wanted > self.count else 0
        # Going back waits, for a machine that is busy now and then is better taken for busy.
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
    """The threads of a run whose configuration says `count`; 0 lets it choose, within what pays.

    What pays is found out once, on `trial`'s steps and the cores that are free then, and written into the run's folder.
    On CUDA, beside other ranks, and where $OMP_NUM_THREADS is set, torch's own number is taken.
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
        # Where others leave no core for a second thread, two are taken to pay, as they do mostly.
        most = best_threads(trial(), most=room) if room > 1 else min(2, cores)
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
    """The number at which a step takes least time, doubled as long as that pays; too few steps give 1.

    Steps with one number and with its double take turns, for they need not be alike. The first pair does not count.
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
            if ratios[-1] > _HOPELESS:  # somebody else has come
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
