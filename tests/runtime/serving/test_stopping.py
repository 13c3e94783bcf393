"""How a server ends: told to under load, twice, or killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.runtime.serving.clients import REQUEST, Load, until
from tests.runtime.serving.conftest import INFER, serving


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_request_and_exits_0(model_path: Path, workers: str) -> None:
    # Clients that connect again and again meet the moment in which the socket closes.
    with serving(model_path, "--workers", workers, "--lame-duck-s", "1", "--packet-filter") as server:
        with Load(server).of(8) as load:
            until(lambda: load.outcomes["200"] > 100)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.get("/v2/health/ready").status == 503, seconds=0.9)
            assert server.get("/v2/health/live").status == 200
            assert server.ask("POST", INFER, *REQUEST).headers["connection"] == "close"
            assert server.process.wait(20) == 0
        assert set(load.outcomes) == {"200"}


def test_an_interrupt_stops_at_once(model_path: Path) -> None:
    with serving(model_path, "--lame-duck-s", "60") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0


def test_a_second_signal_ends_the_lame_duck(model_path: Path) -> None:
    with serving(model_path, "--workers", "2", "--lame-duck-s", "60") as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/v2/health/ready").status == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def children(pid: int) -> list[int]:
    """The workers among the processes that it started."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, tasks) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_killed_worker_is_replaced_and_takes_only_what_it_had_in_hand(model_path: Path) -> None:
    with serving(model_path, "--workers", "2") as server:
        until(lambda: len(children(server.process.pid)) == 2)
        with Load(server).of(8) as load:
            until(lambda: load.outcomes["200"] > 100)
            before = server.post("/v2/repository/index").status
            victim = children(server.process.pid)[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda: load.outcomes["200"] > 300)
            until(lambda: len(set(children(server.process.pid)) - {victim}) == 2)
        failed = sum(count for outcome, count in load.outcomes.items() if outcome != "200")
        assert before == 200
        assert failed <= 8, load.outcomes
        (entry,) = server.get("/v2/models/tiny/stats").json()["model_stats"]
        counted = entry["inference_stats"]["success"]["count"]
        assert counted >= load.outcomes["200"] - 8, "the dead worker's are counted too, but for its last moment's"
        assert server.stop() == 0
