"""The number of threads: what pays, what other processes leave, and what a run keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foundation.machine import Reading
from searcher.running import threads as threads_module
from searcher.running.distributed import ALONE, World
from searcher.running.threads import Threads, best_threads, free_cores, threads_for


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reading(
    clock: float, *, own: float, all: float, stolen: float = 0.0, cores: int, group: float | None = None
) -> Reading:
    return Reading(clock, own, cores, all, stolen, involuntary_switches=None, load_average=None, group_cpu_s=group)


class Machine:
    """Cores with other processes at work, of which time passes as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cores: int) -> None:
        self.clock = self.all = self.own = 0.0
        self.cores = cores
        monkeypatch.setattr(threads_module.time, "monotonic", lambda: self.clock)

    def read(self) -> Reading:
        return reading(self.clock, own=self.own, all=self.all, cores=self.cores)

    def run(self, threads: Threads, *, seconds: int, others: float) -> list[int]:
        """The number of threads after each second, in which the others use so many cores."""
        counts = []
        for _ in range(seconds):
            self.clock += 1
            self.own += threads.count
            self.all += threads.count + others
            threads.between_steps()
            counts.append(threads.count)
        return counts


def test_what_other_processes_and_the_hypervisor_take_is_not_free() -> None:
    before, after = reading(0, own=5, all=10, cores=4), reading(2, own=8, all=14, stolen=2, cores=4)
    assert free_cores(before, after, cores=4) == 2.5


@pytest.mark.parametrize(("others", "free"), [(20, 4), (62, 2), (64, 0)])
def test_a_containers_quota_is_free_as_long_as_the_host_has_cores_for_it(others: int, free: int) -> None:
    before, after = reading(0, own=0, all=0, cores=64), reading(10, own=40, all=40 + 10 * others, cores=64)
    assert free_cores(before, after, cores=4) == free


def test_what_others_take_of_a_containers_quota_is_not_free() -> None:
    before = reading(0, own=0, all=0, cores=64, group=0)
    after = reading(10, own=10, all=45, cores=64, group=40)  # three cores of the container's four
    assert free_cores(before, after, cores=4) == 1


def test_threads_give_way_at_once_and_come_back_when_it_has_been_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said = Machine(monkeypatch, cores=2), []
    threads = Threads(2, cores=2, say=said.append, read=machine.read)
    assert machine.run(threads, seconds=30, others=0.1)[-1] == 2
    assert machine.run(threads, seconds=3, others=0.8)[-1] == 1
    assert torch.get_num_threads() == 1
    assert machine.run(threads, seconds=60, others=1.0)[-1] == 1
    counts = machine.run(threads, seconds=30, others=0.0)
    assert counts[8] == 1
    assert counts[-1] == 2
    assert torch.get_num_threads() == 2
    assert said == [
        "other processes are at work: going on with 1 thread",
        "the machine is quiet again: going on with 2 threads",
    ]


@pytest.mark.parametrize(("others", "count"), [(0.0, 4), (3.0, 4), (5.0, 3), (6.1, 2), (8.0, 1), (20.0, 1)])
def test_a_run_has_a_thread_for_each_free_core_and_no_more_than_pay(
    monkeypatch: pytest.MonkeyPatch, others: float, count: int
) -> None:
    machine = Machine(monkeypatch, cores=8)
    threads = Threads(4, cores=8, say=lambda line: None, read=machine.read)
    assert machine.run(threads, seconds=30, others=others)[-1] == count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `best_threads` reads."""
    now = [0.0]
    monkeypatch.setattr(threads_module.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("others", "count"), [(0.1, 2), (0.9, 1), (5.0, 1)])
def test_a_run_that_begins_beside_others_begins_with_the_threads_they_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float, count: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads_module, "_free_now", lambda cores: cores - others)
    (tmp_path / "threads.json").write_text('{"threads": 2}')
    options: dict[str, Any] = {"world": ALONE, "trial": lambda: iter([]), "say": lambda line: None}
    with threads_for(0, folder=tmp_path, device=torch.device("cpu"), **options) as threads:
        assert threads.count == torch.get_num_threads() == count


def timed_steps(clock: list[float], seconds: dict[int, float], count: int = 10_000) -> Iterator[None]:
    """Steps that take a time given for each number of threads; every other one takes a fourth of it."""
    for step in range(count):
        clock[0] += seconds[torch.get_num_threads()] * (0.25 if step // 2 % 2 else 1)
        yield


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 0.8, 2: 0.4, 4: 0.2}, 4),
        ({1: 0.8, 2: 0.4, 4: 0.6}, 2),
        ({1: 0.4, 2: 0.38, 4: 0.1}, 1),
    ],
)
def test_threads_are_doubled_as_long_as_it_pays(clock: list[float], seconds: dict[int, float], best: int) -> None:
    assert best_threads(timed_steps(clock, seconds), most=4) == best


def test_too_few_steps_to_tell_have_one_thread(clock: list[float]) -> None:
    assert best_threads(timed_steps(clock, {1: 0.4, 2: 0.1}, count=5), most=2) == 1


def test_steps_that_have_become_very_slow_end_the_trial(clock: list[float]) -> None:
    assert best_threads(timed_steps(clock, {1: 0.4, 2: 9.0}), most=2) == 1
    assert clock[0] < 10


def started(clock: list[float], folder: Path, count: int = 0, *, world: World = ALONE, device: str = "cpu") -> Any:
    steps = {1: 0.4, 2: 0.2, 4: 0.1, 8: 0.05}
    options: dict[str, Any] = {"world": world, "trial": lambda: timed_steps(clock, steps), "say": lambda line: None}
    return threads_for(count, folder=folder, device=torch.device(device), **options)


@pytest.mark.parametrize(("free", "count"), [(7.9, 8), (6.0, 4), (2.0, 2)])
def test_a_run_that_begins_beside_others_tries_the_cores_they_leave(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, count: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 8)
    monkeypatch.setattr(threads_module, "_free_now", lambda cores: free)
    with started(clock, tmp_path) as threads:
        assert threads.count == count
    # What was found on some of the cores does not limit a run for good.
    assert (tmp_path / "threads.json").exists() == (count == 8)


@pytest.mark.parametrize("cores", [1, 8])
def test_where_others_leave_no_second_core_there_is_no_trial(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(threads_module, "_free_now", lambda cores: 1.0)
    with started(clock, tmp_path) as threads:
        assert threads.count == 1
    assert (tmp_path / "threads.json").exists() == (cores == 1)
    assert clock[0] == 0


def test_a_runs_choice_is_kept_when_it_goes_on(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads_module, "_free_now", lambda cores: None)
    before = torch.get_num_threads()
    with started(clock, tmp_path) as threads:
        assert threads.count == torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    assert json.loads((tmp_path / "threads.json").read_text()) == {"threads": 2}
    (tmp_path / "threads.json").write_text('{"threads": 1}')
    with started(clock, tmp_path) as threads:
        assert threads.count == torch.get_num_threads() == 1


def test_a_given_number_is_taken_without_a_trial(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 2)
    with started(clock, tmp_path, 3) as threads:
        threads.between_steps()
        assert threads.count == 3
    for other in (started(clock, tmp_path, world=World(0, 2)), started(clock, tmp_path, device="cuda")):
        with other as threads:
            assert threads.count == torch.get_num_threads()
    assert not list(tmp_path.iterdir())
