"""Jobs side by side: their results, their failures, and how they end with the process that started them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from searcher.running.executors import LoneProcesses
from searcher.running.interrupt import Interrupt, Stopped
from searcher.running.jobs import Job, JobsError, Leash, Leashed, Setting, run_jobs
from searcher.running.pacing import Pace
from searcher.running.run_folder import RunError, lock_file
from tests.forked import Forked


def square(number: int, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> int:
    """A job whose result is known; 3, 4 and 8 go wrong, each in its own way."""
    print(f"squaring {number} on {device}")
    if number == 3:
        raise ZeroDivisionError("there is no three")
    if number == 8:
        raise RunError("eight is not for you; take nine")
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_what_fails_here_is_told_with_a_traceback_unless_it_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, is_told in ((8, False), (3, True)):
        with pytest.raises(JobsError, match="eight is not for you" if number == 8 else "there is no three"):
            run_jobs(square, jobs_of(tmp_path, number), folder=tmp_path, setting=setting(), title="")
        assert ("Traceback" in capsys.readouterr().err) == is_told


def wait_for_stop(path: str, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> None:
    """A job that goes on until it is asked to stop; it writes its process's number, and `stopped` at the end."""
    Path(path).write_text(str(os.getpid()))
    while not interrupt.requested:
        time.sleep(0.01)
    Path(path).write_text("stopped")
    raise Stopped


def jobs_of(folder: Path, *arguments: Any) -> list[Job]:
    jobs = [Job(f"job {index}", folder / str(index), 1, one) for index, one in enumerate(arguments)]
    for job in jobs:
        job.folder.mkdir(exist_ok=True)
    return jobs


def setting(**changes: Any) -> Setting:
    return replace(Setting(device="cpu", interrupt=Interrupt(), pace=Pace()), **changes)


@pytest.fixture(scope="module")
def processes() -> Iterator[LoneProcesses]:
    with LoneProcesses(2) as executor:
        yield executor


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_results_come_in_the_jobs_order(tmp_path: Path, processes: LoneProcesses, side_by_side: bool) -> None:
    results = run_jobs(
        square,
        jobs_of(tmp_path, 5, 2, 7),
        folder=tmp_path,
        setting=setting(executor=processes if side_by_side else None),
        title="",
    )
    assert results == [25, 4, 49]
    if side_by_side:
        assert (tmp_path / "1/log.txt").read_text() == "squaring 2 on cpu\n"


def test_a_job_that_fails_or_is_killed_is_reported_and_stops_no_other(tmp_path: Path, processes: LoneProcesses) -> None:
    done: dict[int, Any] = {}
    with pytest.raises(JobsError) as error:
        run_jobs(
            square,
            jobs_of(tmp_path, 3, 4, 5, 6),
            folder=tmp_path,
            setting=setting(executor=processes),
            title="",
            on_result=done.__setitem__,
        )
    assert done == {2: 25, 3: 36}
    assert str(error.value).splitlines() == [
        "2 of 4 have failed; --resume goes on with them, and keeps what is done",
        f"  job 0: ZeroDivisionError: there is no three (its log: {tmp_path / '0/log.txt'})",
        f"  job 1: its process has died: it was killed, perhaps for want of memory (its log: {tmp_path / '1/log.txt'})",
    ]
    assert 'raise ZeroDivisionError("there is no three")' in (tmp_path / "0/log.txt").read_text()


def test_a_failing_job_stops_no_other_in_one_process_either(tmp_path: Path) -> None:
    done: dict[int, Any] = {}
    jobs = jobs_of(tmp_path, 3, 5)
    with pytest.raises(JobsError, match="job 0: ZeroDivisionError"):
        run_jobs(
            square,
            jobs,
            folder=tmp_path,
            setting=setting(),
            title="",
            on_result=done.__setitem__,
        )
    assert done == {1: 25}


@pytest.mark.parametrize("out_of_time", [False, True])
def test_a_stop_reaches_every_job_under_way_and_begins_no_other(
    tmp_path: Path, processes: LoneProcesses, out_of_time: bool
) -> None:
    files = [tmp_path / name for name in "abc"]

    class StopsOnceTwoRun(Interrupt):
        def __init__(self) -> None:
            pass

        @property
        def requested(self) -> bool:  # type: ignore[override]
            return not out_of_time and files[0].exists() and files[1].exists()

    def now() -> float:
        return float(files[0].exists() and files[1].exists())

    pace = Pace(deadline=1.0, now=now) if out_of_time else Pace()
    with pytest.raises(Stopped) as stopped:
        run_jobs(
            wait_for_stop,
            jobs_of(tmp_path, *map(str, files)),
            folder=tmp_path,
            setting=setting(interrupt=StopsOnceTwoRun(), pace=pace, executor=processes),
            title="",
        )
    assert stopped.value.out_of_time == out_of_time
    assert [path.exists() and path.read_text() for path in files] == ["stopped", "stopped", False]


def run_until_stopped(folder: Path, files: list[Path]) -> None:
    """What a parent of two jobs does."""
    with LoneProcesses(2) as processes:
        run_jobs(
            wait_for_stop,
            jobs_of(folder, *map(str, files)),
            folder=folder,
            setting=setting(executor=processes),
            title="",
        )


def test_jobs_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    parent = Forked(run_until_stopped, tmp_path, files, env=os.environ)
    try:
        until(lambda: parent.poll() is not None or all(path.exists() and path.read_text() for path in files))
        assert parent.poll() is None, parent.said
        workers = [int(path.read_text()) for path in files]
        # While they live the folder is theirs.
        with pytest.raises(RunError, match="in use by another process"):
            run_jobs(square, [], folder=tmp_path, setting=setting(), title="")
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not any(is_running(worker) for worker in workers))
    assert run_jobs(square, [], folder=tmp_path, setting=setting(), title="") == []


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_stops_when_another_parent_has_taken_over_or_its_own_shows_no_life(tmp_path: Path) -> None:
    leash = Leash(tmp_path / "leash", "mine")
    leash.path.write_text("mine")
    clock = iter(range(100_000))
    interrupt = Leashed(leash, now=lambda: float(next(clock)))
    assert not any(interrupt.requested for _ in range(200))
    os.utime(leash.path, (1, 1))  # a sign of life
    assert not any(interrupt.requested for _ in range(200))
    assert any(interrupt.requested for _ in range(50))

    interrupt = Leashed(leash, now=lambda: float(next(clock)))
    assert not interrupt.requested
    leash.path.write_text("another's")
    assert interrupt.requested


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    held = lock_file(tmp_path / "lock")
    started = time.monotonic()
    with pytest.raises(RunError, match="in use by another process"):
        lock_file(tmp_path / "lock", wait_s=0.3)
    assert time.monotonic() - started >= 0.3
    held.close()
    lock_file(tmp_path / "lock", wait_s=0.3).close()
