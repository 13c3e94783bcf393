"""Runs independent jobs in parallel, such as trainings: in processes of this machine, or on the workers of a cluster.

Knows folders and a function that does one job, and nothing of what is trained. The function sets its number of threads
itself, so that a result depends neither on the number of parallel jobs nor on where they run.
"""

from __future__ import annotations

import concurrent.futures
import os
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from searcher.running import device as devices
from searcher.running.interrupt import Interrupt, Stopped
from searcher.running.metrics import count_records
from searcher.running.pacing import Pace
from searcher.running.progress import Progress
from searcher.running.run_folder import LOG, lock_file

_LEASH = ".jobs"
# Seconds between two checks of the jobs by their parent, and the least between two checks of its leash by a job.
_LOOK_S = 0.5
# Checks without a sign of life of the parent after which a job stops: two minutes or more, since shared file systems
# show changes late. Counts checks, not seconds, so that jobs continue after their machine was suspended.
_MAX_STALE_LOOKS = 240

R = TypeVar("R")


class JobsError(ValueError):
    """Some jobs have failed; the others are done."""


@dataclass(frozen=True)
class Job:
    """One call of a function, whose results are written to a run folder."""

    title: str
    """Its name in messages: `architecture 3 of 8`."""
    folder: Path
    """Its run folder, already begun; in another process, the job's output is written to `log.txt` in it."""
    num_epochs: int
    """Number of records that the folder's metrics will have."""
    arguments: Any
    """Handed to the function; picklable."""


@dataclass(frozen=True)
class Setting:
    """The context shared by all jobs: device, interrupt, pace and executor."""

    device: str
    """auto, cpu or cuda; resolved where a job runs."""
    interrupt: Interrupt
    pace: Pace
    executor: Executor | None = None
    """From `executors.executor_for`; None runs one job after the other in this process."""


Work = Callable[..., R]
"""Does a job: `work(arguments, device=…, interrupt=…, pace=…)`. It resumes from the files of an earlier call in the
job's folder, raises Stopped when asked to stop, and is defined in a module, so that other processes can import it."""


def run_jobs(
    work: Work[R],
    jobs: Sequence[Job],
    *,
    folder: Path,
    setting: Setting,
    title: str,
    on_result: Callable[[int, R], None] = lambda index, result: None,
) -> list[R]:
    """Returns the jobs' results in the order of `jobs`, whatever the order in which they end.

    Args: folder: common to all jobs; locked during the call. title: of the progress bar, which counts epochs.
    on_result: called with a job's position and result when it is done.
    Raises: JobsError: some failed; all others were run, and the message gives the reason and log of each failure.
    Stopped: the setting's interrupt was requested, or its deadline is over; all running jobs have written their
    checkpoints. RunError: another process runs jobs in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _leash(folder / _LEASH) as leash:
        if setting.executor is None:
            return _one_by_one(work, jobs, setting=setting, on_result=on_result)
        return _side_by_side(
            work, jobs, setting=setting, executor=setting.executor, leash=leash, title=title, on_result=on_result
        )


def _one_by_one(
    work: Work[R], jobs: Sequence[Job], *, setting: Setting, on_result: Callable[[int, R], None]
) -> list[R]:
    results: dict[int, R] = {}
    failures: dict[int, str] = {}
    device = devices.resolve_device(setting.device)
    for index, job in enumerate(jobs):
        try:
            results[index] = work(job.arguments, device=device, interrupt=setting.interrupt, pace=setting.pace)
        except Stopped:
            raise
        except Exception as error:
            if not _speaks_for_itself(error):
                traceback.print_exc()
            failures[index] = _reason(error)
        else:
            on_result(index, results[index])
    return _all_results(results, failures, jobs, has_logs=False)


def _side_by_side(
    work: Work[R],
    jobs: Sequence[Job],
    *,
    setting: Setting,
    executor: Executor,
    leash: Leash,
    title: str,
    on_result: Callable[[int, R], None],
) -> list[R]:
    results: dict[int, R] = {}
    failures: dict[int, str] = {}
    do = partial(
        _do,
        work,
        device=setting.device,
        checkpoint_minutes=setting.pace.checkpoint_minutes,
        leash=leash,
    )
    place = {executor.submit(do, job): index for index, job in enumerate(jobs)}

    def num_epochs_done() -> int:
        return sum(min(count_records(job.folder), job.num_epochs) for job in jobs)

    total = sum(job.num_epochs for job in jobs)
    with Progress(title, total=total, done=num_epochs_done(), unit="epoch") as progress:
        try:
            waiting = set(place)
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, timeout=_LOOK_S, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    index = place[future]
                    outcome = _outcome(future)
                    if outcome.failure is None:
                        results[index] = outcome.value
                        on_result(index, outcome.value)
                    else:
                        failures[index] = outcome.failure
                        progress.line(f"{jobs[index].title} has failed: {outcome.failure}")
                leash.tug()
                progress.reach(num_epochs_done(), jobs=f"{len(results) + len(failures)}/{len(jobs)}")
                out_of_time = setting.pace.now() >= setting.pace.deadline
                if waiting and (setting.interrupt.requested or out_of_time):
                    raise Stopped(out_of_time=not setting.interrupt.requested)
        finally:
            leash.let_go()
            for future in place:
                future.cancel()
            concurrent.futures.wait(place)
    return _all_results(results, failures, jobs, has_logs=True)


def _all_results(results: dict[int, R], failures: dict[int, str], jobs: Sequence[Job], *, has_logs: bool) -> list[R]:
    if not failures:
        return [results[index] for index in range(len(jobs))]
    lines = [f"{len(failures)} of {len(jobs)} have failed; --resume goes on with them, and keeps what is done"]
    for index, reason in sorted(failures.items()):
        log = f" (its log: {jobs[index].folder / LOG})" if has_logs else ""
        lines.append(f"  {jobs[index].title}: {reason}{log}")
    raise JobsError("\n".join(lines))


# --- in the job's own process -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """The result of a job, with an error as text, since not all exceptions are picklable."""

    value: Any = None
    failure: str | None = None
    """The reason why there is no value."""


# Jobs draw from torch's global generator, so a cluster's worker with several threads runs one after the other.
_one_at_a_time = threading.Lock()


def _do(work: Work[R], job: Job, *, device: str, checkpoint_minutes: float, leash: Leash) -> _Outcome:
    with (
        _one_at_a_time,
        open(job.folder / LOG, "a", buffering=1, encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            if leash.look() is None:  # a cluster may start a cancelled job
                raise Stopped
            where = devices.resolve_device(device)
            devices.prepare(where)
            pace = Pace(checkpoint_minutes)
            return _Outcome(work(job.arguments, device=where, interrupt=Leashed(leash), pace=pace))
        except Stopped:
            return _Outcome(failure="it was stopped")
        except Exception as error:
            traceback.print_exc(file=log)
            return _Outcome(failure=_reason(error))


def _outcome(future: Future[_Outcome]) -> _Outcome:
    try:
        return future.result()
    except BrokenExecutor:
        return _Outcome(failure="its process has died: it was killed, perhaps for want of memory")
    except Exception as error:  # each executor has its own error for a lost worker
        return _Outcome(failure=_reason(error))


def _reason(error: Exception) -> str:
    return str(error) if _speaks_for_itself(error) else f"{type(error).__name__}: {error}"


def _speaks_for_itself(error: Exception) -> bool:
    """Whether an error is a user's mistake, with a sufficient message; the others also need their class."""
    return bool(str(error)) and isinstance(error, ValueError | OSError)


# --- how jobs learn that they have to stop ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Leash:
    """A file through which a parent stops its jobs, on this machine or another: they stop once its word has changed.

    Signals do not reach the workers of a cluster, and a killed parent sends none. The file's modification time shows a
    job that the parent is alive.
    """

    path: Path
    word: str

    def tug(self) -> None:
        """Shows the jobs that the parent is alive."""
        os.utime(self.path)

    def let_go(self) -> None:
        """Ask all jobs to stop at their next step."""
        self.path.write_text("", encoding="utf-8")

    def look(self) -> int | None:
        """Returns a number that changes while the parent is alive; None if it has let go, or another has taken over."""
        try:
            return self.path.stat().st_mtime_ns if self.path.read_text(encoding="utf-8") == self.word else None
        except FileNotFoundError:
            return None


@contextmanager
def _leash(path: Path) -> Iterator[Leash]:
    """Yields a leash for new jobs. Raises: RunError: another process holds jobs with that file."""
    with closing(lock_file(path)):
        leash = Leash(path.absolute(), secrets.token_hex(8))
        path.write_text(leash.word, encoding="utf-8")
        try:
            yield leash
        finally:
            leash.let_go()


class Leashed(Interrupt):
    """Asks a job to stop once its leash is let go, or the parent shows no sign of life."""

    def __init__(self, leash: Leash, *, now: Callable[[], float] = time.monotonic) -> None:
        self._leash = leash
        self._now = now
        self._next_look = -float("inf")
        self._seen: int | None = None
        self._stale_looks = 0
        self._stops = False

    @property
    def requested(self) -> bool:  # type: ignore[override]
        if not self._stops and self._now() >= self._next_look:
            self._next_look = self._now() + _LOOK_S
            seen = self._leash.look()
            self._stale_looks = self._stale_looks + 1 if seen == self._seen else 0
            self._seen = seen
            self._stops = seen is None or self._stale_looks >= _MAX_STALE_LOOKS
        return self._stops
