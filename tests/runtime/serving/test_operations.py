"""How a server is run: started, watched, overloaded and protected."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.runtime.conftest import metadata, save, tiny_graph
from tests.runtime.serving.clients import REQUEST, Load, until
from tests.runtime.serving.conftest import INFER, ROOT, Server, ask, binary_request, pixels, serving, serving_with
from tests.runtime.serving.test_repository import good, wrong

TOKEN = "a token of enough characters"


# --- start ------------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "enas.py"), "serve", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_cannot_be_served_ends_the_command_with_the_reason(tmp_path: Path, workers: str) -> None:
    done = command(wrong(tmp_path / "bad.onnx"), "--port", "0", "--workers", workers, "--provider", "cpu")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/bad.onnx: it does not give the outputs")
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_ends_the_command(model_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(model_path, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: cannot listen at 127.0.0.1, port {port}: Address already in use"


def test_half_of_tls_ends_the_command(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    done = command(model_path, "--tls-certificate", tmp_path / "cert.pem")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "error: TLS takes both a certificate and its key: --tls-certificate and --tls-key",
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_certificate_that_is_none_ends_the_command_before_it_listens(
    model_path: Path, tmp_path: Path, workers: str
) -> None:
    wrong_file = tmp_path / "cert.pem"
    wrong_file.touch()
    done = command(model_path, "--tls-certificate", wrong_file, "--tls-key", wrong_file, "--workers", workers)
    assert (done.returncode, done.stderr) == (2, f"error: {wrong_file}: not a certificate in PEM\n")


def test_a_server_says_where_it_listens_and_to_whom(server: Server) -> None:
    assert server.lines[0].endswith(f"at http://127.0.0.1:{server.port}, to this machine only (--host)\n")


def test_https_is_served_with_a_certificate(model_path: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*line.split(), *files], check=True, capture_output=True)
    with serving(model_path, "--tls-certificate", str(certificate), "--tls-key", str(key), is_ready=False) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        connection = HTTPSConnection("127.0.0.1", server.port, context=context, timeout=10)
        assert ask(connection, "GET", "/v2/health/live").status == 200
        until(lambda: ask(connection, "GET", "/v2/health/ready").status == 200)
        # The second and third repeat the first one's head.
        for _ in range(3):
            assert ask(connection, "POST", INFER, *REQUEST).status == 200
        connection.close()


# --- who may ask ------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_everywhere_but_by_probes_and_the_page(model_path: Path) -> None:
    with serving(model_path, environment={"ENAS_TOKEN": TOKEN}) as server:
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert server.get(path).status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
            reply = server.ask("GET", "/v2/models/tiny", headers={k: v.encode() for k, v in headers.items()})
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.error == "this server needs a token: Authorization: Bearer …"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert server.ask("GET", "/metrics", headers=headers).status == 200
        assert server.ask("POST", INFER, REQUEST[0], REQUEST[1] | headers).status == 200
        assert TOKEN not in server.ask("GET", "/v1/models", headers=headers).body.decode()


def test_beyond_this_machine_models_are_changed_only_with_a_token(model_path: Path) -> None:
    with serving(model_path, "--host", "0.0.0.0") as server:
        assert "there is no token" in server.lines[0]
        reply = server.post("/v2/repository/models/tiny/unload", {})
        assert (reply.status, "with a token" in reply.error) == (403, True)
        assert server.get("/v2/models/tiny/ready").status == 200


# --- models come and go -----------------------------------------------------------------------------------------------


def test_a_picture_waits_for_a_classifier_that_is_not_ready(tmp_path: Path) -> None:
    save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    with serving(tmp_path) as server:
        server.post("/v2/repository/models/tiny/unload", {})
        reply = server.ask("POST", "/v1/classify", b"")
        assert (reply.status, reply.error) == (503, "no image classifier is ready")
        assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_models_are_unloaded_and_loaded_in_every_worker(tmp_path: Path, workers: str) -> None:
    save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    good(tmp_path / "other.onnx")
    with serving(tmp_path, "--workers", workers) as server:
        until(lambda: all(server.get("/v2/health/ready").status == 200 for _ in range(10)))
        assert (
            server.post("/v2/repository/models/tiny/unload", {"parameters": {"unload_dependents": False}}).json() == {}
        )
        replies = [server.ask("POST", INFER, *REQUEST) for _ in range(20)]
        assert {(reply.status, reply.error) for reply in replies} == {(503, "model 'tiny' is not ready")}
        assert server.get("/v2/health/ready").status == 200
        assert server.post("/v2/repository/models/tiny/load", {}).json() == {}
        assert {server.ask("POST", INFER, *REQUEST).status for _ in range(20)} == {200}
        wrong(tmp_path / "other.onnx")
        reply = server.post("/v2/repository/models/other/load", {})
        assert (reply.status, reply.error.startswith("load failed for model 'other'")) == (400, True)
        assert server.get("/v2/models/other/ready").status == 200


def test_a_changed_file_is_taken_under_load_without_a_failure(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    with serving(path, "--poll-s", "0.1") as server, Load(server).of(4) as load:

        def precision() -> str:
            return server.get("/v2/models/tiny").json()["properties"]["precision"]

        assert precision() == "fp32"
        save(tmp_path / "new", tiny_graph(), metadata(precision="fp16"))
        os.replace(tmp_path / "new", path)
        until(lambda: precision() == "fp16")
    assert set(load.outcomes) == {"200"}


# --- too much ---------------------------------------------------------------------------------------------------------


def test_overload_is_answered_with_429_and_the_server_recovers_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    with serving(path, "--max-queue-size", "2", "--max-batch-size", "1") as server:
        with Load(server).of(32) as load:
            until(lambda: load.outcomes["429"] > 50 and load.outcomes["200"] > 50)
        assert set(load.outcomes) == {"200", "429"}
        assert server.ask("POST", INFER, *REQUEST).status == 200
        text = server.get("/metrics").body.decode()
        counts = dict(line.rsplit(" ", 1) for line in text.splitlines())
        rejected = counts['nv_inference_request_failure{model="tiny",version="1",reason="REJECTED"}']
        assert float(rejected) == load.outcomes["429"]
        assert float(counts['nv_inference_pending_request_count{model="tiny",version="1"}']) == 0


def test_a_refusal_says_when_to_come_again(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    # A lone request waits for company long enough for the others to find the queue full.
    with serving(path, "--max-queue-size", "1", "--max-queue-delay-ms", "500", "--max-batch-size", "1") as server:
        with Load(server).of(16) as load:
            reply = None

            def is_refused() -> bool:
                nonlocal reply
                reply = server.ask("POST", INFER, *REQUEST)
                return reply.status == 429

            until(is_refused)
        assert reply is not None
        assert (reply.headers["retry-after"], reply.error) == ("1", "too many requests: 1 are waiting already")
        assert set(load.outcomes) <= {"200", "429"}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in which a lone request waits a minute for company."""
    path = save(tmp_path_factory.mktemp("patient") / "tiny.onnx", tiny_graph(), metadata())
    with serving(path, "--max-queue-delay-ms", "60000") as server:
        yield server


def test_a_request_that_waits_past_its_timeout_is_told_so(patient: Server) -> None:
    body, headers = binary_request(pixels(0), parameters={"binary_data_output": True, "timeout": 50_000})
    start = time.monotonic()
    reply = patient.ask("POST", INFER, body, headers)
    assert (reply.status, reply.error) == (503, "the request's timeout expired while it waited")
    assert 0.05 <= time.monotonic() - start < 5


def test_a_client_that_goes_leaves_the_queue(patient: Server) -> None:
    def metric(name: str, labels: str = "") -> float:
        found = [
            line
            for line in patient.get("/metrics").body.decode().splitlines()
            if line.startswith(f'{name}{{model="tiny",version="1"{labels}}}')
        ]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    connection = patient.connect()
    connection.request("POST", INFER, *REQUEST)
    until(lambda: metric("nv_inference_pending_request_count") == 1)
    connection.close()
    until(lambda: metric("nv_inference_pending_request_count") == 0)
    assert metric("nv_inference_request_failure", ',reason="CANCELED"') == 1
    assert metric("nv_inference_exec_count") == 0


# --- logs -------------------------------------------------------------------------------------------------------------


def test_logs_are_lines_of_json_with_the_requests_id(model_path: Path) -> None:
    with serving(model_path, "--access-log", "--log-format", "json") as server:
        server.ask("GET", "/v2/models/x%0Ay", headers={"X-Request-ID": "seven"})
        server.stop()
        lines = [json.loads(line) for line in server.rest_of_log().splitlines()]
    request = next(line for line in lines if line.get("request_id") == "seven")
    assert (request["event"], request["method"], request["status"]) == ("request", "GET", 404)
    assert request["path"] == "/v2/models/x\ny"
    assert [line["event"] for line in lines if line["event"] != "request"] == ["loaded", "ready", "draining", "stopped"]


def test_only_our_own_failures_are_logged_unless_all_are_asked_for(model_path: Path) -> None:
    with serving(model_path) as server:
        server.get("/nowhere")
        server.ask("POST", INFER, *REQUEST)
        server.stop()
        assert " request " not in server.rest_of_log()


# --- slow and many ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that waits 0.3 s for a request and takes three connections."""
    path = save(tmp_path_factory.mktemp("impatient") / "tiny.onnx", tiny_graph(), metadata())
    with serving_with(path, receive_timeout_s=0.3, max_connections=3) as (process, port):
        until(lambda: status_of(port, b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n") == b"200")
        yield port
        process.terminate()
        assert process.wait(20) == 0


def status_of(port: int, data: bytes, *, then: Callable[[], object] = lambda: None) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        then()
        return connection.recv(4096)[9:12]


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /v2/models/tiny/infer HT",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_a_request_that_does_not_arrive_is_given_up(impatient: int, begun: bytes) -> None:
    assert status_of(impatient, begun) == b"408"


def test_a_connection_too_many_is_turned_away(impatient: int) -> None:
    connections = [socket.create_connection(("127.0.0.1", impatient), timeout=5) for _ in range(3)]
    time.sleep(0.05)
    with socket.create_connection(("127.0.0.1", impatient), timeout=5) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert answer.endswith(b'{"error":"too many connections"}')
    for connection in connections:
        connection.close()


def test_a_batch_is_larger_than_one_when_clients_are_many(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", tiny_graph(), metadata())
    with serving(path, "--max-queue-delay-ms", "20") as server:
        with Load(server).of(8) as load:
            until(lambda: load.outcomes["200"] > 50)
        (entry,) = server.get("/v2/models/tiny/stats").json()["model_stats"]
        assert entry["execution_count"] < entry["inference_count"] / 2
