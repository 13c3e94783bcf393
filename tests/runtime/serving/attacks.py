"""What hostile clients send, each in its own way; all to this machine, and all of bounded size."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache

from PIL import Image

from tests.runtime.serving.conftest import INFER

Attack = Callable[[int], bytes]
"""Attacks a port once; gives what the server says to it."""

_TIMEOUT_S = 20.0


def say(port: int, data: bytes, *, ends: bool = False, timeout_s: float = _TIMEOUT_S) -> bytes:
    """What a server answers to these bytes, until it closes or waits for more. Args: ends: nothing more will come."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        # It may close before all is sent, and may have answered by then.
        with suppress(OSError):
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while chunk := connection.recv(65536):
                answer += chunk
                if not ends and b"\r\n\r\n" in answer and len(answer) < 65536:
                    break
    return answer


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _tensor(values: str, count: int) -> bytes:
    entry = f'{{"inputs":[{{"name":"images","datatype":"UINT8","shape":[{count},6,8,1],"data":[{values}]}}]}}'
    return entry.encode()


# Made once: attackers on the server's own machine are to take its cores from it as little as they can.
@cache
def _zipped(kind: str) -> bytes:
    values, count = {
        "wide": ('"' + "a" * 100_000 + '"' + ",0" * 20_000, 400),
        "numbers": ("0," * 8_000_000 + "0", 166_667),
        "objects": ('{"":0},' * 2_000_000 + "0", 9),
    }[kind]
    return post(INFER, gzip.compress(_tensor(values, count)), {"Content-Encoding": "gzip"})


@cache
def _scans() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (2000, 1500)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff\xc4", start)
    return post("/v1/classify", data[:start] + data[start:end] * 1000 + data[end:])


def wide_text(port: int) -> bytes:
    """A long text among numbers, which would make every one of them as wide."""
    return say(port, post(INFER, _tensor('"' + "a" * 20_000 + '"' + ",0" * 12_000, 250)))


def zipped_wide_text(port: int) -> bytes:
    return say(port, _zipped("wide"))


def zipped_numbers(port: int) -> bytes:
    """16 MB of JSON in 15 kB."""
    return say(port, _zipped("numbers"))


def zipped_objects(port: int) -> bytes:
    return say(port, _zipped("objects"))


def pipelined(port: int) -> bytes:
    return say(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 250_000)


def endless_header(port: int) -> bytes:
    return say(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 8_000_000)


def endless_headers(port: int) -> bytes:
    return say(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2_000_000)


def endless_trailer(port: int) -> bytes:
    head = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    return say(port, head + b"X: " + b"a" * 8_000_000)


def smuggled(port: int) -> bytes:
    """A request in the body of one that wants another protocol."""
    inner = post("/v2/repository/models/tiny/unload", b"{}")
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    return say(port, post(INFER, inner, upgrade))


def many_scans(port: int) -> bytes:
    """A progressive JPEG whose first scan comes a thousand times."""
    return say(port, _scans())


def rebound(port: int) -> bytes:
    """A page whose name was made to lead here."""
    names = b"Host: evil.example\r\nOrigin: http://evil.example\r\n"
    request = b"POST /v2/repository/models/tiny/unload HTTP/1.1\r\n" + names + b"Content-Length: 2\r\n\r\n{}"
    return say(port, request)


def never_reading(port: int) -> bytes:
    """Asks and asks, and takes nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, suppress(OSError):
        for _ in range(200):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    return b""


def gone(port: int) -> bytes:
    """Leaves before its body is whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(post(INFER, b"x" * 100_000)[:50_000])
    return b""


ATTACKS: dict[Attack, bytes | None] = {
    wide_text: b"400",
    zipped_wide_text: b"400",
    zipped_numbers: b"400",
    zipped_objects: b"4",
    pipelined: b"200",
    endless_header: b"431",
    endless_headers: b"431",
    endless_trailer: b"4",
    smuggled: b"400",
    many_scans: b"400",
    rebound: b"403",
    never_reading: None,
    gone: None,
}
"""Attack -> how its answer's status begins; None where there is none."""


# --- fuzz -------------------------------------------------------------------------------------------------------------

_PIECES = (
    b"GET ", b"POST ", b"/v2", INFER.encode(), b"/v1/classify", b" HTTP/1.1\r\n", b"Host: localhost\r\n", b"\r\n",
    b"\n", b"Content-Length: 9\r\n", b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"{}", b"\x00",
    b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Inference-Header-Content-Length: 3\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"3\r\none\r\n", b"0\r\n\r\n", b'{"inputs":', b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08",
)  # fmt: skip


def fuzzed(seed: int) -> bytes:
    """Nearly a request, or a few."""
    dice = random.Random(seed)
    if dice.random() < 0.3:
        return b"".join(dice.choices(_PIECES, k=dice.randrange(1, 20)))
    document = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 6, 8, 1], "data": [7] * 48}]}
    whole = bytearray(post(dice.choice([INFER, "/v1/classify", "/v2/repository/index"]), json.dumps(document).encode()))
    for _ in range(dice.randrange(4)):
        place = dice.randrange(len(whole))
        whole[place : place + dice.randrange(9)] = dice.choice([b"", *_PIECES, dice.randbytes(3), b"[" * 200])
    return bytes(whole) * dice.choice([1, 1, 1, 2, 3])


def status_of(answer: bytes) -> int:
    """0 where there is no answer."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
