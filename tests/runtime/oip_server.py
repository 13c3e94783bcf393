"""A small server of the Open Inference Protocol: one model, `double`, which gives twice its input."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

MODEL = {
    "name": "double",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}
Reply = tuple[int, dict[str, str], bytes]


class Double(BaseHTTPRequestHandler):
    """As the protocol says; tests replace what they want otherwise."""

    protocol_version = "HTTP/1.1"
    extensions: tuple[str, ...] = ("binary_tensor_data",)
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._send(*self.about(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.infer(body, self.headers.get("Inference-Header-Content-Length")))

    def about(self, path: str) -> Reply:
        documents = {
            "/v2": {"name": "stub", "version": "1.0", "extensions": self.extensions},
            "/v2/models/double": MODEL,
        }
        if path not in documents:
            return 404, {}, b'{"error": "unknown model"}'
        return 200, {"Content-Type": "application/json"}, json.dumps(documents[path]).encode()

    def infer(self, body: bytes, header_length: str | None) -> Reply:
        request = json.loads(body[: int(header_length)] if header_length else body)
        (x,) = request["inputs"]
        assert (x["name"], x["datatype"]) == ("x", "FP32")
        if header_length is None:
            values = np.array(x["data"], np.float32) * 2
            answer = {"outputs": [{"name": "y", "datatype": "FP32", "shape": x["shape"], "data": values.tolist()}]}
            return 200, {}, json.dumps(answer).encode()
        values = np.frombuffer(body[int(header_length) :], np.float32) * 2
        parameters = {"binary_data_size": values.nbytes}
        output = {"name": "y", "datatype": "FP32", "shape": x["shape"], "parameters": parameters}
        header = json.dumps({"outputs": [output]}).encode()
        return 200, {"Inference-Header-Content-Length": str(len(header))}, header + values.tobytes()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler] = Double) -> Iterator[str]:
    """A server on a free port of this machine; gives its address."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stalling(*, at_call: int, seconds: float) -> type[Double]:
    """One request at a time, each in a millisecond but one, which takes `seconds`."""
    lock = threading.Lock()
    calls = iter(range(1_000_000))

    class Stalling(Double):
        def infer(self, body: bytes, header_length: str | None) -> Reply:
            with lock:
                time.sleep(seconds if next(calls) == at_call else 0.001)
            return super().infer(body, header_length)

    return Stalling
