"""uvicorn's HTTP connection with what it leaves open: time limits, a limit of connections, and errors as JSON."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.serving.gate import ON_DISCONNECT

# What is still on its way when a server stops: a first request, and TLS's last word.
_GRACE_S = 1.0
_TLS_GRACE_S = 5.0
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


class Connection(HttpToolsProtocol):
    """A connection with a client."""

    receive_timeout_s: ClassVar[float]
    """For a whole request to arrive, and for the first one to begin."""
    max_connections: ClassVar[int]

    _is_late: asyncio.TimerHandle | None = None
    _is_told_to_close = False

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

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._close_tls_in_time()

    def shutdown(self) -> None:
        """Close if nothing is being answered; a connection that has just been made may bring its request first."""
        if self.cycle is None and not self._is_told_to_close:
            self._is_told_to_close = True
            self.loop.call_later(_GRACE_S, self.shutdown)
            return
        super().shutdown()
        self._close_tls_in_time()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(400, msg)

    def _close_tls_in_time(self) -> None:
        """A closing TLS connection waits for the client to close too, which may take half a minute."""
        if self.scheme == "https" and self.transport.is_closing():
            self.loop.call_later(_TLS_GRACE_S, self.transport.abort)

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
