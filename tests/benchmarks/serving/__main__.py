"""`make bench-serving`: our server beside bare onnxruntime, LitServe and MLServer, on the same model and machine.

    python -m tests.benchmarks.serving RUN|MODEL [--seconds 10] [--threads N]

Load comes from a process of its own, over loopback. Every server is measured in turn while the others are stopped, for
some are busy even without a request; three rounds of it, medians are told. Each runs onnxruntime with the same threads,
one unless told otherwise; batches hold 32 at most. Bare onnxruntime runs as many batches side by side as fill the
cores; it is measured after each round, in batches as large as they were on average in that. CPU time beside the model
is what the server's process takes for a request, less what bare onnxruntime takes for a row in such a batch.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from foundation.machine import Machine, usable_cores
from foundation.tables import ABSENT, aligned
from runtime.models.artifact import read_model
from runtime.models.model import Model
from tests.runtime.serving.conftest import Server, binary_request, serving

ROOT = Path(__file__).parents[3]
PEERS = Path(__file__).parent
_CONNECTIONS = (1, 32)
_ROUNDS = 3
_BARE_SIZES = (1, 2, 4, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Contestant:
    name: str
    port: int
    request: bytes
    """A whole HTTP request."""
    mean_batch: Callable[[], float | None]
    """Rows a batch since this was last asked, where the server tells."""
    send_signal: Callable[[int], None]
    """To all of its processes."""
    cpu_s: Callable[[], float | None] = lambda: None
    """CPU time that it has taken, where that is known."""

    @contextmanager
    def alone_among(self, contestants: Sequence[Contestant]) -> Iterator[None]:
        others = [contestant for contestant in contestants if contestant is not self]
        for other in others:
            other.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                other.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Bare:
    """Bare onnxruntime with batches of one size."""

    ms: float
    """Median time of a batch."""
    rows_per_s: float
    cpu_us: float
    """CPU time of a row."""


@dataclass(frozen=True)
class Figures:
    p50_ms: float
    p99_ms: float
    per_s: float
    client_share: float
    """Of all cores' time, what the load generator took."""
    failures: int
    mean_batch: float | None
    bare: Bare | None
    """In such batches, measured right after."""
    cpu_us: float | None
    """CPU time of a request."""

    @property
    def of_bare(self) -> float | None:
        return None if self.bare is None else self.per_s / self.bare.rows_per_s

    @property
    def beside_the_model_us(self) -> float | None:
        return None if self.bare is None or self.cpu_us is None else self.cpu_us - self.bare.cpu_us


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    path = read_model(arguments.model).path
    model = Model.open(path, provider="cpu", threads=arguments.threads)
    wide = Model.open(path, provider="cpu", threads=usable_cores())
    image = np.random.default_rng(0).integers(0, 256, (1, *model.image_shape), dtype=np.uint8)
    print(Machine.inspect().describe())
    print(f"{path} · sha256 {model.sha256[:12]} · onnxruntime with {arguments.threads} threads")
    print(f"python -m tests.benchmarks.serving {' '.join(sys.argv[1:])}\n")
    side_by_side = max(1, usable_cores() // arguments.threads)
    alone_ms = bare(model, 1, side_by_side=1).ms
    print(f"bare session.run of one row, alone: {alone_ms:.3f} ms; {side_by_side} batches side by side:")
    rows = [
        [str(size)]
        + [f"{bare(m, size, side_by_side=n).rows_per_s:,.0f}" for m, n in ((model, side_by_side), (wide, 1))]
        for size in _BARE_SIZES
    ]
    print(aligned(["batch", "rows/s", "one at a time on all cores, rows/s"], rows), "\n")
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(ours(path, image, threads=arguments.threads)),
            stack.enter_context(litserve(path, image, threads=arguments.threads)),
            stack.enter_context(mlserver(path, image, threads=arguments.threads)),
        ]
        for connections in _CONNECTIONS:
            measured: dict[str, list[Figures]] = {contestant.name: [] for contestant in contestants}
            for _ in range(_ROUNDS):
                for contestant in contestants:
                    with contestant.alone_among(contestants):
                        figures = measure(
                            contestant,
                            connections=connections,
                            seconds=arguments.seconds,
                            bare_at=lambda batch: bare(model, batch, side_by_side=side_by_side),
                        )
                    measured[contestant.name].append(figures)
            tell(measured, connections=connections, alone_ms=alone_ms)


def bare(model: Model, size: int, *, side_by_side: int) -> Bare:
    """Measure `session.run` on batches of this size in so many threads at the same time."""
    images = np.zeros((size, *model.image_shape), np.uint8)

    def run(seconds: float) -> tuple[list[float], float]:
        times = []
        begin_s, stop = time.thread_time(), time.perf_counter() + seconds
        while (start := time.perf_counter()) < stop:
            model.session.ort.run(None, {"images": images})
            times.append((time.perf_counter() - start) * 1e3)
        return times, time.thread_time() - begin_s

    run(0.2)
    seconds = 1.0
    with ThreadPoolExecutor(side_by_side) as pool:
        runs = list(pool.map(run, [seconds] * side_by_side))
    rows = size * sum(len(times) for times, _ in runs)
    return Bare(statistics.median(runs[0][0]), rows / seconds, sum(cpu_s for _, cpu_s in runs) / rows * 1e6)


def measure(contestant: Contestant, *, connections: int, seconds: float, bare_at: Callable[[int], Bare]) -> Figures:
    """Load one server, after a second of warming up. Args: bare_at: measures bare onnxruntime in such batches."""
    for duration in (1.0, seconds):
        contestant.mean_batch()
        begin_s = contestant.cpu_s()
        result = run_load(contestant.port, contestant.request, connections=connections, seconds=duration)
    latencies = np.array(result["latencies_ms"])
    assert latencies.size, f"{contestant.name} answered nothing: {result['statuses']}"
    end_s = contestant.cpu_s()
    batch = contestant.mean_batch()
    return Figures(
        p50_ms=float(np.quantile(latencies, 0.5)),
        p99_ms=float(np.quantile(latencies, 0.99)),
        per_s=len(latencies) / result["seconds"],
        client_share=result["cpu_s"] / result["seconds"] / usable_cores(),
        failures=sum(count for status, count in result["statuses"].items() if status != "200"),
        mean_batch=batch,
        bare=None if batch is None else bare_at(round(batch)),
        cpu_us=None if begin_s is None or end_s is None else (end_s - begin_s) / len(latencies) * 1e6,
    )


def run_load(
    port: int, request: bytes, *, connections: int, seconds: float, rate_per_s: float | None = None
) -> dict[str, Any]:
    """What `load` tells, of a process of its own."""
    line = [sys.executable, "-m", "tests.benchmarks.serving.load", "--port", str(port)]
    line += ["--connections", str(connections), "--seconds", str(seconds)]
    line += [] if rate_per_s is None else ["--rate", str(rate_per_s)]
    return json.loads(subprocess.run(line, cwd=ROOT, input=request, capture_output=True, check=True).stdout)


def tell(measured: dict[str, list[Figures]], *, connections: int, alone_ms: float) -> None:
    rows = []
    for name, rounds in measured.items():
        of = {field: statistics.median(getattr(r, field) for r in rounds) for field in ("p50_ms", "p99_ms", "per_s")}
        batches = [r.mean_batch for r in rounds if r.mean_batch is not None]
        shares = [r.of_bare for r in rounds if r.of_bare is not None]
        without_client = [r.of_bare / (1 - r.client_share) for r in rounds if r.of_bare is not None]
        rows.append(
            [
                name,
                f"{of['p50_ms']:.2f}",
                f"{of['p99_ms']:.2f}",
                f"{of['per_s']:,.0f}",
                f"{statistics.median(batches):.1f}" if batches else ABSENT,
                f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})" if shares else ABSENT,
                f"{statistics.median(without_client):.0%}" if shares else ABSENT,
                f"{statistics.median(r.client_share for r in rounds):.0%}",
                str(sum(r.failures for r in rounds)),
            ]
        )
    header = ["", "p50 ms", "p99 ms", "requests/s", "rows a batch", "of bare at that batch"]
    header += ["with the client's share taken off", "client", "failures"]
    print(f"{connections} connections, median of {_ROUNDS} rounds")
    print(aligned(header, rows))
    beside = [r.beside_the_model_us for r in measured["enas serve"] if r.beside_the_model_us is not None]
    if beside:
        print(f"enas serve takes {statistics.median(beside):.0f} us of CPU time a request beside the model")
    if connections == 1:
        p50 = statistics.median(r.p50_ms for r in measured["enas serve"])
        print(f"enas serve adds {p50 - alone_ms:.2f} ms to a bare session.run of {alone_ms:.2f} ms")
    print()


# --- servers ----------------------------------------------------------------------------------------------------------


@contextmanager
def ours(path: Path, image: np.ndarray, *, threads: int) -> Iterator[Contestant]:
    with serving(path, "--threads", str(threads)) as server:
        name = server.post("/v2/repository/index").json()[0]["name"]
        body, headers = binary_request(image)
        request = http_request(f"/v2/models/{name}/infer", body, headers)
        mean_batch, send_signal = _MeanBatch(server, name), server.process.send_signal
        yield Contestant(
            "enas serve", server.port, request, mean_batch, send_signal, partial(_cpu_s, server.process.pid)
        )


def _cpu_s(pid: int) -> float | None:
    """CPU time that a process has taken; None where the system does not tell. Source: proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _MeanBatch:
    """Rows a batch since the last call."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._path = f"/v2/models/{model}/stats"
        self._seen = (0, 0)

    def __call__(self) -> float | None:
        (entry,) = self._server.get(self._path).json()["model_stats"]
        rows, batches = entry["inference_count"], entry["execution_count"]
        (old_rows, old_batches), self._seen = self._seen, (rows, batches)
        return (rows - old_rows) / (batches - old_batches) if batches > old_batches else None


@contextmanager
def litserve(path: Path, image: np.ndarray, *, threads: int) -> Iterator[Contestant]:
    port = 8471
    python = ROOT / ".venv-litserve" / "bin" / "python"
    body = json.dumps({"image": base64.b64encode(image.tobytes()).decode()}).encode()
    request = http_request("/predict", body, {"Content-Type": "application/json"})
    with peer(
        [python, PEERS / "litserve_peer.py", path.absolute(), port, threads], port=port, health="/health"
    ) as send_signal:
        yield Contestant("LitServe 0.2.19", port, request, lambda: None, send_signal)


@contextmanager
def mlserver(path: Path, image: np.ndarray, *, threads: int) -> Iterator[Contestant]:
    port = 8472
    binaries = ROOT / ".venv-mlserver" / "bin"
    shape = list(image.shape)
    inputs = [{"name": "images", "datatype": "UINT8", "shape": shape, "data": image.ravel().tolist()}]
    request = http_request(
        "/v2/models/peer/infer", json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"}
    )
    environment = {"PEER_MODEL": str(path.absolute()), "PEER_THREADS": str(threads), "PYTHONPATH": str(PEERS)}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"http_port": port, "grpc_port": 8473, "metrics_port": 8474, "host": "127.0.0.1", "debug": False}
        (Path(folder) / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
        model = {"name": "peer", "implementation": "mlserver_peer.Model", "max_batch_size": 32, "max_batch_time": 0.002}
        (Path(folder) / "model-settings.json").write_text(json.dumps(model))
        line = [binaries / "mlserver", "start", folder]
        with peer(line, port=port, health="/v2/health/ready", **environment) as send_signal:
            yield Contestant("MLServer 1.7.1", port, request, lambda: None, send_signal)


@contextmanager
def peer(line: Sequence[object], *, port: int, health: str, **environment: str) -> Iterator[Callable[[int], None]]:
    """Another server, until it is no longer needed; gives a function that sends it a signal."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        # A group of its own: these servers leave processes behind when only their first one is stopped.
        process = subprocess.Popen(
            [str(word) for word in line],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            for _ in range(600):
                assert process.poll() is None, f"{line[0]} ended with {process.returncode}: {_tail(log)}"
                if _answers(port, health):
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"{line[0]} does not get ready: {_tail(log)}")
            yield partial(os.killpg, process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-2000:]


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def http_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    main()
