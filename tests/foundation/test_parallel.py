"""Threads and processes alike: results in order, errors at their turn, nothing taken far ahead, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import psutil
import pytest

from foundation import parallel
from foundation.parallel import Workers, in_order

ROOT = Path(__file__).parents[2]
kinds = pytest.mark.parametrize("kind", [parallel.thread_pool, parallel.process_pool])
# It kills itself while its processes live.
_KILLED = """
import os, signal
from foundation import parallel
from tests.foundation.test_parallel import pid_of

if __name__ == "__main__":
    with parallel.process_pool() as workers:
        print(*set(parallel.in_order(pid_of, range(200), workers=workers)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def halved(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def killed(number: int) -> None:
    os._exit(9)


def pid_of(number: int) -> int:
    time.sleep(0.001)
    return os.getpid()


@kinds
def test_results_come_in_order_and_an_error_at_its_turn(kind: Callable[[], AbstractContextManager[Workers]]) -> None:
    with kind() as workers:
        assert list(in_order(halved, range(0, 1000, 2), workers=workers)) == list(range(500))
        results = in_order(halved, [*range(0, 1000, 2), 7, 8], workers=workers, most_at_once=1)
        assert [next(results) for _ in range(500)] == list(range(500))
        with pytest.raises(ValueError, match="7 is odd"):
            next(results)


@kinds
def test_only_a_few_items_are_taken_ahead(kind: Callable[[], AbstractContextManager[Workers]]) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in count():
            taken = number
            yield 2 * number

    with kind() as workers:
        assert next(in_order(halved, endless(), workers=workers, most_at_once=3)) == 0
    assert taken < 3 * (2 * parallel.num_workers() + 2)


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(BrokenExecutor), parallel.process_pool() as workers:
        list(in_order(killed, range(3), workers=workers))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids, done.stderr
    deadline_s = time.monotonic() + 30
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
