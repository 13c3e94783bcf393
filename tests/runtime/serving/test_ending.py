"""How a server ends and renews itself whatever hangs, and what signals do."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime.conftest import metadata, save, tiny_graph
from tests.runtime.serving.clients import REQUEST, until
from tests.runtime.serving.conftest import INFER, ask, serving, serving_with
from tests.runtime.serving.test_operations import TOKEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def test_a_decoder_that_hangs_keeps_neither_its_client_nor_the_end_waiting(tmp_path: Path) -> None:
    request = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    hang = "import time; server._EXIT_GRACE_S = 0.5; pictures.prepare_file = lambda *args, **options: time.sleep(600)"
    path = save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    with serving_with(path, first=hang, exit_timeout_s=1, decode_timeout_s=0.5) as (process, port):

        def answer() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(request)
                return connection.recv(4096)

        until(lambda: b"not decoded within 0.5 s" in answer(), seconds=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_leaves_what_is_unfinished(model_path: Path, workers: str) -> None:
    with serving(model_path, "--workers", workers, "--max-queue-delay-ms", "60000") as server:
        connection = server.connect()
        connection.request("POST", INFER, *REQUEST)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None, "it finishes what it has"
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        server.process.wait(20)
        assert time.monotonic() - start < 10
        connection.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_has_token_and_models_read_anew(tmp_path: Path, workers: str) -> None:
    models, token = tmp_path / "models", tmp_path / "token"
    save(models / "tiny.onnx", tiny_graph(), metadata())
    token.write_text(TOKEN)
    with serving(models, "--token-file", str(token), "--workers", workers) as server:
        connection = server.connect()
        old = {"Authorization": f"Bearer {TOKEN}"}
        for _ in range(2):
            assert ask(connection, "POST", INFER, REQUEST[0], REQUEST[1] | old).status == 200
        token.write_text(TOKEN[::-1])
        save(models / "other.onnx", tiny_graph(), metadata())
        server.process.send_signal(signal.SIGHUP)
        new = {"Authorization": f"Bearer {TOKEN[::-1]}"}
        until(lambda: all(server.ask("GET", "/v2/models/other/ready", headers=new).status == 200 for _ in range(40)))
        # Each worker reads them in its own time, and which of them answers is chance.
        until(lambda: ask(connection, "POST", INFER, REQUEST[0], REQUEST[1] | old).status == 401)
        token.write_text("short")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        # Of the same worker, for another may have read the new token no sooner than the one that is refused.
        assert ask(connection, "POST", INFER, REQUEST[0], REQUEST[1] | new).status == 200
        connection.close()
        assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_while_the_server_starts_is_heard_later(model_path: Path, tmp_path: Path, workers: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with serving(model_path, "--token-file", str(token), "--workers", workers, is_ready=False) as server:
        token.write_text(TOKEN[::-1])
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded" in _line(server.process))
        new = {"Authorization": f"Bearer {TOKEN[::-1]}"}
        until(lambda: server.ask("POST", INFER, REQUEST[0], REQUEST[1] | new).status == 200)
        assert server.stop() == 0


def test_a_hangup_that_cannot_take_everything_says_what_it_left(tmp_path: Path) -> None:
    models, token = tmp_path / "models", tmp_path / "token"
    path = save(models / "tiny.onnx", tiny_graph(), metadata())
    token.write_text(TOKEN)
    with serving(models, "--token-file", str(token), "--log-format", "json") as server:

        def told() -> tuple[str, str]:
            """What a hangup ends with, and why."""
            server.process.send_signal(signal.SIGHUP)
            while True:
                line = json.loads(_line(server.process))
                if "reloaded" in line["event"]:
                    return line["event"], line.get("error", "")

        assert told() == ("reloaded", "")
        part = "reloaded in part"
        token.write_text("short")
        assert told() == (part, "the token must be at least 16 printable ASCII characters")
        assert told()[0] == part, "and not that it is, after that"
        token.write_text(TOKEN)
        assert told() == ("reloaded", "")
        path.write_bytes(b"no model")
        assert told() == (part, f"{path}: not an ONNX file, or one cut short (8 bytes)")
        token.write_text("short")
        assert told()[0] == "not reloaded"
        path.unlink()
        for _ in range(2):
            event, reason = told()
            assert (event, f"; {models}: no model.onnx" in reason) == ("not reloaded", True)


def test_a_hangup_takes_the_models_beside_a_broken_one(tmp_path: Path) -> None:
    path = save(tmp_path / "broken.onnx", tiny_graph(), metadata())
    save(tmp_path / "whole.onnx", tiny_graph(), metadata())
    with serving(tmp_path, "--log-format", "json") as server:
        path.write_bytes(b"no model")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded in part" in _line(server.process))
        path.unlink()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in _line(server.process))


def certificate(folder: Path, name: str) -> None:
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -addext subjectAltName=IP:127.0.0.1"
    files = ["-subj", f"/CN={name}", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*line.split(), *files], check=True, capture_output=True)


def test_a_hangup_has_the_certificate_read_anew(model_path: Path, tmp_path: Path) -> None:
    certificate(tmp_path, "first")
    options = ["--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    with serving(model_path, *options, is_ready=False) as server:

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=20)

        until(lambda: "ready" in _line(server.process))
        assert shown() == (tmp_path / "cert.pem").read_text()
        certificate(tmp_path, "second")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: shown() == (tmp_path / "cert.pem").read_text())
        (tmp_path / "key.pem").write_text("no key")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded in part" in _line(server.process))
        assert shown() == (tmp_path / "cert.pem").read_text()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()
