"""A lean HTTP load generator, for a process of its own: one request again and again on every connection.

    python -m tests.benchmarks.serving.load --port 8000 --connections 32 --seconds 5 [--rate 800] < request

`request` is the bytes of a whole HTTP request. Without a rate each connection asks again as soon as it is answered;
with one, requests are due at equal distances, and a latency counts from the moment its request was due. Prints JSON:
the latencies of answered requests, counts of statuses (0: the connection was lost), and the CPU time that this
process took from the machine it shares with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import uvloop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends the request, notes how long its answer took, and sends it again until the time is over."""

    def __init__(
        self, request: bytes, note: Callable[[int, float], None], *, due_s: float, interval_s: float, stop_s: float
    ) -> None:
        """Args: due_s: when the first request is due. interval_s: between two; 0 is as soon as one is answered."""
        self._request = request
        self._note = note
        self._due_s = due_s
        self._interval_s = interval_s
        self._stop_s = stop_s
        self._buffer = bytearray()
        self._expected: int | None = None
        self.is_over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._send_in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over.done():
            self._note(0, 0.0)
            self.is_over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._buffer, 0, end + 2)
            assert found, "an answer without a length"
            self._expected = end + 4 + int(found[1])
        if len(self._buffer) < self._expected:
            return
        now = time.perf_counter()
        self._note(int(self._buffer[9:12]), now - self._due_s)
        self._buffer.clear()
        self._expected = None
        self._due_s = self._due_s + self._interval_s if self._interval_s else now
        if self._due_s < self._stop_s:
            self._send_in_time()
        else:
            self.is_over.set_result(None)
            self._transport.close()

    def _send_in_time(self) -> None:
        delay_s = self._due_s - time.perf_counter()
        if delay_s > 0:
            asyncio.get_running_loop().call_later(delay_s, self._transport.write, self._request)
        else:
            self._transport.write(self._request)


async def load(
    port: int, *, request: bytes, connections: int, seconds: float, rate_per_s: float | None
) -> dict[str, object]:
    latencies_s: list[float] = []
    statuses: Counter[int] = Counter()

    def note(status: int, latency_s: float) -> None:
        statuses[status] += 1
        if status == 200:
            latencies_s.append(latency_s)

    loop = asyncio.get_running_loop()
    start, start_cpu = time.perf_counter(), time.process_time()
    interval_s = connections / rate_per_s if rate_per_s else 0.0
    made = [
        await loop.create_connection(
            partial(
                Connection,
                request,
                note,
                due_s=start + interval_s * number / connections if rate_per_s else time.perf_counter(),
                interval_s=interval_s,
                stop_s=start + seconds,
            ),
            "127.0.0.1",
            port,
        )
        for number in range(connections)
    ]
    await asyncio.gather(*(protocol.is_over for _, protocol in made))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_s": time.process_time() - start_cpu,
        "statuses": statuses,
        "latencies_ms": [round(latency * 1e3, 4) for latency in latencies_s],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float)
    arguments = parser.parse_args()
    result = uvloop.run(
        load(
            arguments.port,
            request=sys.stdin.buffer.read(),
            connections=arguments.connections,
            seconds=arguments.seconds,
            rate_per_s=arguments.rate,
        )
    )
    json.dump(result, sys.stdout)
