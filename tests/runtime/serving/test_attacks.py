"""Hostile clients against a real server: it says no, in little memory, and goes on serving."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runtime.serving.attacks import ATTACKS, Attack, fuzzed, say, status_of
from tests.runtime.serving.clients import REQUEST
from tests.runtime.serving.conftest import INFER, Server, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def attacked(repository_path: Path) -> Iterator[Server]:
    with serving(repository_path) as server:
        assert server.ask("POST", INFER, *REQUEST).status == 200
        yield server
        assert server.stop() == 0


def peak_mib(server: Server) -> float:
    """The most memory that it has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_in_little_memory(attacked: Server, attack: Attack) -> None:
    before = peak_mib(attacked)
    answer = attack(attacked.port)
    if (status := ATTACKS[attack]) is not None:
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert peak_mib(attacked) - before < 200
    assert attacked.ask("POST", INFER, *REQUEST).status == 200


def _no_answer_is_our_fault(server: Server, seeds: range) -> None:
    """Fuzzed requests are answered as clients' mistakes, or not at all, and leave no memory behind."""
    before = peak_mib(server)
    with ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(lambda seed: status_of(say(server.port, fuzzed(seed), ends=True)), seeds))
    assert statuses <= {0, 100, 200, 400, 403, 404, 405, 408, 413, 431, 501}
    assert peak_mib(server) - before < 100
    assert server.ask("POST", INFER, *REQUEST).status == 200


def test_no_fuzzed_request_is_our_fault(attacked: Server) -> None:
    _no_answer_is_our_fault(attacked, range(300))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_of_a_hundred_thousand_fuzzed_requests_none_is_our_fault(attacked: Server) -> None:
    _no_answer_is_our_fault(attacked, range(100_000))
