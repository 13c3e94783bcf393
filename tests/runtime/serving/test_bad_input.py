"""What clients do wrong, over HTTP, against a real server."""

from __future__ import annotations

import gzip
import json
import socket

import pytest

from tests.runtime.serving.conftest import (
    HEADER_LENGTH,
    INFER,
    Server,
    ask,
    binary_request,
    infer_document,
    pixels,
)

IMAGES = pixels(0, 128, 255)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "no such path: /nowhere"),
        ("GET", "/v2/", 404, "no such path: /v2/"),
        ("GET", INFER, 405, "Method Not Allowed"),
        ("DELETE", "/v2", 405, "Method Not Allowed"),
        ("POST", "/v2/models/nix/infer", 404, "Request for unknown model: 'nix' is not found"),
        ("GET", "/v2/models/nix/config", 404, "Request for unknown model: 'nix' is not found"),
        ("GET", "/v2/models/tiny/versions/2", 404, "Request for unknown model: 'tiny' version 2 is not found"),
        ("GET", "/v2/models/tiny/versions/x/ready", 404, "Request for unknown model: 'tiny' version x is not found"),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404, "no such path: "),
        ("GET", "/v2/models/../../etc/passwd", 404, "no such path: "),
        ("POST", "/v2/repository/models/..%2F..%2Fx/load", 404, "no such path: "),
        ("POST", "/v2/repository/models/%2e%2e/load", 404, "failed to load '..', there is no such model"),
        ("POST", "/v2/repository/models/.hidden/load", 404, "failed to load '.hidden', there is no such model"),
        ("POST", "/v2/repository/models/tiny/explode", 404, "no such path: "),
        ("GET", "/v2/systemsharedmemory/status", 501, "/v2/systemsharedmemory/status: this server does not have"),
        ("GET", "/v2/logging", 501, "/v2/logging: this server does not have"),
        ("GET", "/v2/trace/setting", 501, "/v2/trace/setting: this server does not have"),
        ("GET", "/v2/models/tiny/trace/setting", 501, "/v2/models/tiny/trace/setting: this server does not have"),
    ],
)
def test_every_mistake_is_answered_in_the_protocols_way(
    server: Server, method: str, path: str, status: int, message: str
) -> None:
    reply = server.ask(method, path)
    assert reply.status == status
    assert reply.error.startswith(message)


BODY, HEADERS = binary_request(IMAGES)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 400, "failed to parse the request JSON buffer"),
        (b"{", {}, 400, "failed to parse the request JSON buffer"),
        (b'{"inputs": [NaN]}', {}, 400, "failed to parse the request JSON buffer"),
        (b"[" * 10_000 + b"]" * 10_000, {}, 400, "the request's JSON is nested 10000 deep"),
        (BODY[:-1], HEADERS, 400, "unexpected size for input 'images', expecting 1 additional bytes"),
        (BODY + b"x", HEADERS, 400, "unexpected additional input data for model 'tiny'"),
        (BODY, {}, 400, "failed to parse the request JSON buffer"),
        (BODY, {HEADER_LENGTH: "99999"}, 400, "Inference-Header-Content-Length is 99999"),
        (BODY, {HEADER_LENGTH: "-5"}, 400, "Inference-Header-Content-Length is '-5'"),
        (BODY, HEADERS | {"Content-Encoding": "gzip"}, 400, "the request's body is not gzip"),
        (gzip.compress(BODY)[:-9], HEADERS | {"Content-Encoding": "gzip"}, 400, "the request's gzip body is cut short"),
        (
            BODY,
            HEADERS | {"Content-Encoding": "br"},
            501,
            "Unsupported compression type 'br'; use one of gzip, deflate",
        ),
        (bytes(1_000_001), {}, 413, "the request's body has 1,000,001 bytes, at most 1,000,000 are allowed"),
        (
            gzip.compress(bytes(50_000_000)),
            {"Content-Encoding": "gzip"},
            413,
            "the request's decompressed body has more than the 1,000,000 bytes that are allowed",
        ),
        (
            BODY,
            HEADERS | {"Origin": "http://evil.example"},
            403,
            "a page of http://evil.example may not use this server",
        ),
    ],
)
def test_a_bad_body_is_answered_and_the_connection_goes_on(
    server: Server, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    connection = server.connect()
    reply = ask(connection, "POST", INFER, body, headers)
    assert reply.status == status
    assert reply.error.startswith(message)
    assert ask(connection, "POST", INFER, BODY, HEADERS).status == 200
    connection.close()


def test_a_body_in_pieces_is_held_to_the_same_limit(server: Server) -> None:
    connection = server.connect()
    connection.request("POST", INFER, iter([bytes(600_000)] * 2), encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 413
    assert "more than the 1,000,000 bytes" in json.loads(response.read())["error"]
    connection.close()


def raw(server: Server, data: bytes, *, half_close: bool = False) -> bytes:
    """What the server says to these bytes, until it closes or waits."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            pass
        return answer


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_what_is_not_http_is_told_so_as_json(server: Server, data: bytes) -> None:
    answer = raw(server, data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b'{"error":"Invalid HTTP request received."}')


@pytest.mark.parametrize("length", [10, 10**6 - 1])
def test_a_client_that_stops_midway_harms_nobody(server: Server, length: int) -> None:
    request = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{".encode()
    assert raw(server, request, half_close=True) == b""
    assert server.post(INFER, infer_document(IMAGES)).status == 200


def test_requests_in_one_piece_are_answered_in_their_order(server: Server) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /v2/models/nix HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(server, request + request + last)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]
    assert answer.endswith(b'is not found"}')


def test_a_request_id_is_kept_if_it_is_decent_and_made_if_not(server: Server) -> None:
    assert server.ask("GET", "/v2", headers={"X-Request-ID": "abc-1.2:3"}).headers["x-request-id"] == "abc-1.2:3"
    for bad in ("a b", "x" * 200, "<script>"):
        assert len(server.ask("GET", "/v2", headers={"X-Request-ID": bad}).headers["x-request-id"]) == 16


def test_a_page_of_the_server_itself_may_ask(server: Server) -> None:
    headers = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert server.post("/v2/repository/index", {}, headers).status == 200


def test_models_do_not_come_from_clients(server: Server) -> None:
    for parameters in ({"file:1/model.onnx": "AAAA"}, {"config": "{}"}):
        reply = server.post("/v2/repository/models/tiny/load", {"parameters": parameters})
        assert (reply.status, "is not supported" in reply.error) == (501, True)
