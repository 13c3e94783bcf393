"""A process that is gone or hangs ends the others, even where their main threads wait; one that leaves does not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from searcher.running.pulse import Pulse, leave
from tests.end_to_end.two_processes import free_port
from tests.forked import Forked


def wait_beside_a_pulse(rank: int, port: int, patience_s: float) -> None:
    """What a process of two does, from its beginning to its loss of the other."""
    store = TCPStore("127.0.0.1", port, 2, is_master=rank == 0, timeout=timedelta(seconds=60))
    store.add("begun", 1)
    while store.add("begun", 0) < 2:
        time.sleep(0.05)
    pulse = Pulse(store.clone(), rank=rank, size=2, on_loss=leave, period_s=0.1, patience_s=patience_s)
    pulse.start()
    print("begun", flush=True)
    time.sleep(600)  # as a main thread that waits for a kernel of NCCL


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_what_is_left_ends_with_one_line(victim: int, ending: signal.Signals) -> None:
    port = free_port()
    processes = [Forked(wait_beside_a_pulse, rank, port, 2.0, env=os.environ) for rank in range(2)]
    try:
        for process in processes:
            while process.said[0] != "begun\n":
                assert process.poll() is None, process.said
                time.sleep(0.01)
        processes[victim].send_signal(ending)
        _, errors = processes[1 - victim].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - victim].returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in errors
    if victim == 1:
        assert line == "error: no sign of life from process 1 for 2 s"


class Numbers(Counter[str]):
    """A store within one process."""

    def add(self, name: str, amount: int) -> int:
        self[name] += amount
        return self[name]


def test_a_process_that_leaves_is_not_missed() -> None:
    store, losses = Numbers(), []
    first, second = (
        Pulse(store, rank=rank, size=2, on_loss=losses.append, period_s=0.01, patience_s=0.3) for rank in range(2)
    )
    first.start(), second.start()
    time.sleep(0.1)
    second.stop(leaves=True)
    time.sleep(0.6)
    assert losses == []
    first.stop(leaves=True)


def test_a_process_that_never_began_is_missed() -> None:
    found = threading.Event()
    reasons: list[str] = []

    def on_loss(reason: str) -> None:
        reasons.append(reason)
        found.set()

    Pulse(Numbers(), rank=0, size=3, on_loss=on_loss, period_s=0.01, patience_s=0.1).start()
    assert found.wait(30)
    assert reasons == ["no sign of life from process 1, 2 for 0 s"]
