"""uvicorn's HTTP connection with what it leaves open: time limits, a limit of connections, and errors as JSON."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.serving.gate import ON_DISCONNECT

_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


class Connection(HttpToolsProtocol):
    """A connection with a client."""

    receive_timeout_s: ClassVar[float]
    """For a whole request to arrive, and for the first one to begin."""
    max_connections: ClassVar[int]

    _is_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._turn_away(503, "too many connections")
            return
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_request()
        cycle = self.cycle
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete:
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
            for callback in scope["extensions"][ON_DISCONNECT]:
                callback()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {ON_DISCONNECT: []}
        self._expect_request()

    def on_message_complete(self) -> None:
        self._got_request()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(400, msg)

    def _expect_request(self) -> None:
        self._got_request()
        self._is_late = self.loop.call_later(self.receive_timeout_s, self._give_up)

    def _got_request(self) -> None:
        if self._is_late is not None:
            self._is_late.cancel()
            self._is_late = None

    def _give_up(self) -> None:
        # An answer may be out before its request is whole; nothing can follow it then.
        if self.cycle is not None and self.cycle.scope is self.scope and self.cycle.response_started:
            self.transport.close()
        else:
            self._turn_away(408, f"the request did not arrive within {self.receive_timeout_s:g} s")

    def _turn_away(self, status: int, message: str) -> None:
        """Answer without an application, and close."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": message})
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
        self.transport.write(head % (status, _PHRASES[status], len(body), retry) + body)
        self.transport.close()


def connection_class(*, receive_timeout_s: float, max_connections: int) -> type[Connection]:
    """Connections with these limits; uvicorn takes a class and gives it nothing of ours."""
    limits: dict[str, Any] = {"receive_timeout_s": receive_timeout_s, "max_connections": max_connections}
    return type("Connection", (Connection,), limits)
