"""What the server does in the long run and under too much load; `python -m tests.benchmarks.serving.soak RUN|MODEL`.

First its capacity: 32 connections that ask again and again, six times ten seconds, of which the median counts. Then,
for `--seconds` (600), 80 % of that, at equal distances: errors, percentiles of all answers and of each ten seconds of
them, memory after a minute and in the end, and what part of the machine's time its host gave to others. Then 1,000
connections, which is overload: statuses, memory, and how long it takes until a request is answered again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

import numpy as np

from foundation.allowance import usable_cores
from foundation.machine import Machine
from runtime.models.artifact import read_model
from runtime.models.model import Model
from tests.benchmarks.serving.__main__ import http_request, run_load
from tests.runtime.serving.conftest import Server, binary_request, serving

_WARM_S = 60.0
_WINDOW_S = 10.0
_CAPACITY_WINDOWS = 6


class Memory:
    """The server's resident memory, once a second."""

    def __init__(self, server: Server) -> None:
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._start_s = time.monotonic()
        self._is_over = threading.Event()
        self.readings: list[tuple[float, float]] = []
        """Seconds, MiB."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._is_over.wait(1.0):
            line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS"))
            self.readings.append((time.monotonic() - self._start_s, int(line.split()[1]) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    path = read_model(arguments.model).path
    images = np.zeros((1, *Model.open(path, provider="cpu").image_shape), np.uint8)
    print(Machine.inspect().describe())
    with serving(path, "--workers", str(arguments.workers)) as server:
        name = server.post("/v2/repository/index").json()[0]["name"]
        infer, body = f"/v2/models/{name}/infer", binary_request(images)
        request = http_request(infer, *body)
        windows = [run_load(server.port, request, connections=32, seconds=_WINDOW_S) for _ in range(_CAPACITY_WINDOWS)]
        rates = [len(window["latencies_ms"]) / window["seconds"] for window in windows]
        capacity = statistics.median(rates)
        print(f"capacity: {capacity:,.0f} requests/s, {min(rates):,.0f} to {max(rates):,.0f} in {_WINDOW_S:g} s each")
        soak(server, request, rate_per_s=0.8 * capacity, seconds=arguments.seconds)
        overload(server, infer, body)
        started = time.monotonic()
        status = server.stop()
        print(f"stopped with {status} in {time.monotonic() - started:.1f} s")


def soak(server: Server, request: bytes, *, rate_per_s: float, seconds: float) -> None:
    memory, stolen_before = Memory(server), stolen_s()
    result = run_load(server.port, request, connections=64, seconds=seconds, rate_per_s=rate_per_s)
    memory.stop()
    stolen = (stolen_s() - stolen_before) / result["seconds"] / usable_cores()
    latencies = np.array(result["latencies_ms"])  # in the order of the answers
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    windows = np.array_split(latencies, max(1, round(seconds / _WINDOW_S)))
    ratios = [float(np.divide(*np.quantile(window, [0.99, 0.5]))) for window in windows]
    warm = next((mib for at_s, mib in memory.readings if at_s >= min(_WARM_S, seconds / 2)), memory.readings[-1][1])
    print(
        f"{seconds:g} s at {rate_per_s:,.0f} requests/s: {result['statuses']}, p50 {p50:.2f} ms, p99 {p99:.2f} ms "
        f"({p99 / p50:.1f} times), {warm:.0f} MiB after a minute, {memory.readings[-1][1]:.0f} MiB in the end"
    )
    print(
        f"p99 in times of p50, over {_WINDOW_S:g} s each: median {statistics.median(ratios):.1f}, "
        f"{sum(ratio < 5 for ratio in ratios)} of {len(ratios)} below 5; {stolen:.1%} of the cores' time went to others"
    )


def stolen_s() -> float:
    """Seconds of all cores that the host of a virtual machine gave to others, since it started."""
    ticks = int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
    return ticks / os.sysconf("SC_CLK_TCK")


def overload(server: Server, path: str, body: tuple[bytes, dict[str, str]]) -> None:
    memory = Memory(server)
    result = run_load(server.port, http_request(path, *body), connections=1000, seconds=10)
    started = time.monotonic()
    while server.ask("POST", path, *body).status != 200:
        time.sleep(0.01)
    recovery_s = time.monotonic() - started
    memory.stop()
    most = max(mib for _, mib in memory.readings)
    print(f"1,000 connections: {result['statuses']}, at most {most:.0f} MiB; answers again after {recovery_s:.2f} s")


if __name__ == "__main__":
    main()
