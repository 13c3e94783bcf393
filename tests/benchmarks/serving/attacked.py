"""What an honest client notices of attacks; `make bench-attacks`.

    python -m tests.benchmarks.serving.attacked RUN|MODEL [--seconds 600] [--attackers 2] [--rate 200]

The client asks at equal distances on 8 connections, first alone for a tenth of the time, then beside attackers that
take turns at every attack of the tests, and then alone again. Its p99 beside them is told in times of its p99 alone,
with the server's memory and every status. The attackers share the machine's cores with the server, so part of what the
client notices is theirs.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from foundation.machine import Machine
from runtime.models.artifact import read_model
from runtime.models.model import Model
from tests.benchmarks.serving.__main__ import http_request, run_load
from tests.benchmarks.serving.soak import Memory
from tests.runtime.serving.attacks import ATTACKS, fuzzed, say, status_of
from tests.runtime.serving.conftest import binary_request, serving

_CONNECTIONS = 8
# Between two attacks of one attacker: they are to be many, not to have the machine for themselves.
_PAUSE_S = 0.2


class Attackers:
    """Threads that attack a port in every way, one after the other, again and again."""

    def __init__(self, port: int, *, count: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._attack, args=(number,)) for number in range(count)]

    def __enter__(self) -> Attackers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _attack(self, seed: int) -> None:
        attacks = list(ATTACKS)
        while not self._is_over.is_set():
            seed += len(self._threads)
            attack = attacks[seed % len(attacks)]
            try:
                answer = attack(self._port)
                self.outcomes[f"{attack.__name__} {status_of(answer)}"] += 1
                self.outcomes[f"fuzzed {status_of(say(self._port, fuzzed(seed), ends=True))}"] += 1
            except OSError as error:
                self.outcomes[f"{attack.__name__} {type(error).__name__}"] += 1
            self._is_over.wait(_PAUSE_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--attackers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=200.0)
    arguments = parser.parse_args()
    path = read_model(arguments.model).path
    images = np.zeros((1, *Model.open(path, provider="cpu").image_shape), np.uint8)
    print(Machine.inspect().describe())
    with serving(path) as server:
        name = server.post("/v2/repository/index").json()[0]["name"]
        request = http_request(f"/v2/models/{name}/infer", *binary_request(images))

        def honest(seconds: float) -> dict[str, Any]:
            return run_load(server.port, request, connections=_CONNECTIONS, seconds=seconds, rate_per_s=arguments.rate)

        memory = Memory(server)
        before = honest(arguments.seconds / 10)
        with Attackers(server.port, count=arguments.attackers) as attackers:
            beside = honest(arguments.seconds)
        after = honest(arguments.seconds / 10)
        memory.stop()
        started_s = time.monotonic()
        status = server.stop()
        tell("alone", before)
        tell(f"beside {arguments.attackers} attackers", beside)
        tell("alone again", after)
        alone_ms = np.concatenate([before["latencies_ms"], after["latencies_ms"]])
        ratio = np.quantile(beside["latencies_ms"], 0.99) / np.quantile(alone_ms, 0.99)
        print(f"p99 beside attackers in times of p99 alone: {ratio:.1f}")
        print(
            f"memory: at most {max(mib for _, mib in memory.readings):.0f} MiB, {memory.readings[-1][1]:.0f} in the end"
        )
        told = ", ".join(f"{outcome} {count}" for outcome, count in sorted(attackers.outcomes.items()))
        print(f"{attackers.outcomes.total()} attacks: {told}")
        print(f"stopped with {status} in {time.monotonic() - started_s:.1f} s")


def tell(name: str, result: dict[str, Any]) -> None:
    p50, p99 = np.quantile(result["latencies_ms"], [0.5, 0.99])
    print(f"{name}: {result['seconds']:.0f} s, {result['statuses']}, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
