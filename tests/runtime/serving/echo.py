"""A connection of the server's to a client without a network between, and an application that echoes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from runtime.serving.connections.connection import Connection, connection_class
from runtime.serving.connections.exchange import Exchange, Receive, Response, Scope, Send, respond
from runtime.serving.settings import Settings

ASKED = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
_ANSWER = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")


class Transport(asyncio.Transport):
    """A client's end: keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = self.is_aborted = self.is_paused = False
        self.num_unsent = 0

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.sent += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.num_unsent

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@dataclass
class Echo:
    """Answers with what it was asked; repeated requests when they are told to be answered."""

    is_held: bool = False
    is_hasty: bool = False
    """Answers before the body has come."""
    waiting: list[Callable[[], None]] = field(default_factory=list)
    num_withdrawn: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, has_more = b"", not self.is_hasty
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            has_more = message["more_body"]
        about = f"{scope['method']} {scope['path']} ".encode()

        def begin(again: bytes, reply: Callable[[Response], None]) -> Callable[[], None]:
            def answer() -> None:
                reply(response(about + again, way=b"fast"))

            if self.is_held:
                self.waiting.append(answer)
            else:
                asyncio.get_running_loop().call_soon(answer)
            return self.withdraw

        if (remember := Exchange.of(scope).remember) is not None:
            remember(begin)
        await respond(send, response(about + body, way=b"slow"))

    def withdraw(self) -> None:
        self.num_withdrawn += 1


def response(body: bytes, *, way: bytes) -> Response:
    return Response(200, [(b"content-length", str(len(body)).encode()), (b"way", way)], body)


class Client:
    """Speaks with a connection to an `Echo` without a network between."""

    def __init__(
        self, *, receive_timeout_s: float = 30.0, max_connections: int = 9, beside: Client | None = None
    ) -> None:
        """Args: beside: a client of the same server."""
        if beside is None:
            self.echo = Echo()
            settings = Settings(Path(), receive_timeout_s=receive_timeout_s, max_connections=max_connections)
            self._connections = connection_class(settings)
            self._config = uvicorn.Config(self.echo, http=self._connections, ws="none", lifespan="off", log_config=None)
            self._state = ServerState()
        else:
            self.echo, self._connections = beside.echo, beside._connections
            self._config, self._state = beside._config, beside._state
        self.transport = Transport()
        self.connection: Connection = self._connections(self._config, self._state, {})
        self.connection.connection_made(self.transport)
        self._num_heard = 0

    def another(self) -> Client:
        """Another client of this one's server."""
        return Client(beside=self)

    async def says(self, *pieces: bytes, turns: int = 9) -> list[tuple[bytes, str]]:
        """Send pieces, each when the server has done with those before; gives the answers and their ways."""
        for piece in pieces:
            self.connection.data_received(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        answers = list(answers_in(self.transport.sent))
        new, self._num_heard = answers[self._num_heard :], len(answers)
        return [(body, way) for _, body, way, _ in new]


def answers_in(data: bytes) -> Iterator[tuple[int, bytes, str, bool]]:
    """Status, body, way, and whether the connection closes, of every answer."""
    while data:
        head = _ANSWER.match(data)
        assert head, data[:200]
        headers = dict(line.split(b": ", 1) for line in head[2].splitlines())
        end = head.end() + int(headers[b"content-length"])
        way, closes = headers.get(b"way", b"").decode(), headers.get(b"connection") == b"close"
        yield int(head[1]), data[head.end() : end], way, closes
        data = data[end:]
