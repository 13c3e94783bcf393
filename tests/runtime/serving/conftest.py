"""A real server in a process of its own, and a plain client."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import language_models
from tests.runtime.conftest import SHAPE, metadata, save, tiny_graph

ROOT = Path(__file__).parents[3]
DRAWING = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><circle r='4'/></svg>"
INFER = "/v2/models/tiny/infer"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What an error says; every one is an object with this key alone."""
        document = self.json()
        assert list(document) == ["error"]
        assert self.headers["content-type"] == "application/json"
        return document["error"]


@dataclass
class Server:
    """A running `enas serve`."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = self.connect()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def post(self, path: str, document: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("POST", path, None if document is None else json.dumps(document).encode(), headers)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def wait_until_ready(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, self.rest_of_log()
            if self.get("/v2/health/ready").status == 200:
                return
            time.sleep(0.05)
        raise AssertionError("the server does not get ready")

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def rest_of_log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, names, response.read())


@contextmanager
def serving(
    models: Path, *options: str, environment: Mapping[str, str] | None = None, is_ready: bool = True
) -> Iterator[Server]:
    """`enas serve` on a free port of this machine."""
    command = [sys.executable, str(ROOT / "enas.py"), "serve", str(models), "--port", "0", "--provider", "cpu"]
    process = subprocess.Popen(
        [*command, "--lame-duck-s", "0", *options],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.search(r"at https?://[^ ]+:(\d+),", first)
        assert found, first + process.stderr.read()
        server = Server(process, int(found[1]), [first])
        if is_ready:
            server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.stderr is not None
        process.stderr.close()


@contextmanager
def serving_with(models: Path, *, first: str = "", **settings: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server's process and port, with settings that no option gives. Args: first: a line of Python to begin with."""
    script = f"""
from pathlib import Path
from runtime.serving import server
from runtime.serving.endpoints import pictures
from runtime.serving.connections.listener import listen
from runtime.serving.settings import Settings
{first}
settings = Settings(Path({str(models)!r}), port=0, provider="cpu", lame_duck_s=0, **{settings!r})
listener = listen(settings)
print(listener.getsockname()[1], flush=True)
server.run(settings, listener=listener)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def pixels(*values: int) -> np.ndarray:
    """Images of even brightness: [B, H, W, C]."""
    return np.stack([np.full(SHAPE, value, dtype=np.uint8) for value in values])


def infer_document(images: np.ndarray, **more: Any) -> dict[str, Any]:
    shape = list(images.shape)
    return {
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": shape, "data": images.ravel().tolist()}],
        **more,
    }


def binary_request(images: np.ndarray, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose tensors travel as bytes, both ways."""
    entry = {
        "name": "images",
        "datatype": "UINT8",
        "shape": list(images.shape),
        "parameters": {"binary_data_size": images.nbytes},
    }
    header = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}, **more}).encode()
    return header + images.tobytes(), {HEADER_LENGTH: str(len(header))}


def outputs_of(reply: Reply) -> dict[str, np.ndarray]:
    """The tensors of an inference answer."""
    assert reply.status == 200, reply.body
    length = int(reply.headers.get(HEADER_LENGTH.lower(), len(reply.body)))
    offset, outputs = length, {}
    for output in json.loads(reply.body[:length])["outputs"]:
        assert output["datatype"] == "FP32"
        if "data" in output:
            values = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(reply.body[offset : offset + size], np.float32)
            offset += size
        outputs[output["name"]] = values.reshape(output["shape"])
    assert offset == len(reply.body)
    return outputs


@pytest.fixture(scope="session")
def repository_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `tiny` in two versions, a language model's run, and what is no model."""
    root = tmp_path_factory.mktemp("models")
    for version in ("1", "3"):
        save(root / "tiny" / version / "model.onnx", tiny_graph(), metadata(drawing=DRAWING))
    language_models.save_run(root / "cats")
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("no model")
    return root


@pytest.fixture(scope="session")
def server(repository_path: Path) -> Iterator[Server]:
    """A server of that folder, for tests that leave it as it is."""
    with serving(
        repository_path, "--max-batch-size", "8", "--max-request-bytes", "1000000", "--runners", "1"
    ) as running:
        yield running
