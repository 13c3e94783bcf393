"""uvicorn's HTTP connection with what it leaves open: time limits, a limit of connections, and errors as JSON.

And with a short way for requests that repeat the head of one before them (see `extensions`): they are taken where
nothing else is being read or answered, and pass by uvicorn's parser, which then has never seen them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runtime.serving.extensions import ON_DISCONNECT, REPEATS, Begin, Response

# What is still on its way when a server stops: a first request, and TLS's last word.
_GRACE_S = 1.0
_TLS_GRACE_S = 5.0
# Of requests that may be repeated; a longer one takes its time on any way.
_MAX_REPEATED_BYTES = 128 * 1024
_MAX_HEAD_BYTES = 4096
# Kept until the rest of a repeated request comes; more than that is read on the long way, which keeps account of it.
_MAX_ARRIVED_BYTES = 8192
_HEAD_END = b"\r\n\r\n"
# With any of these a head does not say by itself where its request ends, or asks for something first.
_NOT_REPEATED = frozenset({b"transfer-encoding", b"upgrade", b"expect"})
_CLOSE = (b"connection", b"close")
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


@dataclass(frozen=True)
class _Known:
    """The head of a request that was answered."""

    head: bytes
    length: int
    """Bytes of the head and of the body that it announces."""
    begin: Begin[Response]


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


_UNHEARD = _Unheard()


@dataclass(eq=False, slots=True)
class _Repeated:
    """A repeated request that is being answered; what uvicorn looks at of its `RequestResponseCycle`."""

    response_started: bool = False
    response_complete: bool = False
    keep_alive: bool = True
    disconnected: bool = False
    message_event: _Unheard = _UNHEARD
    scope: dict[str, Any] = field(default_factory=lambda: {"extensions": {ON_DISCONNECT: []}})


class Connection(HttpToolsProtocol):
    """A connection with a client."""

    receive_timeout_s: ClassVar[float]
    """For a whole request to arrive, and for the first one to begin."""
    max_connections: ClassVar[int]

    _is_late: asyncio.TimerHandle | None = None
    _is_told_to_close = False
    _is_reading = False
    """A request has begun and is not whole; of those that the parser sees."""
    _num_begun = 0
    _known: _Known | None = None
    _arrived = b""
    """Of a repeated request that is not whole."""

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
        if cycle is not None:
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
            callbacks = scope["extensions"][ON_DISCONNECT]
            if not cycle.response_complete:
                for callback in callbacks:
                    callback()
            callbacks.clear()
        # What leads back here only the garbage collector would take apart.
        self._known, self._arrived = None, b""
        if self.scope is not None:
            self.scope["extensions"].pop(REPEATS, None)

    def data_received(self, data: bytes) -> None:
        data, self._arrived = self._arrived + data, b""
        known = self._known
        if known is None or not self._is_free() or not data.startswith(known.head):
            self._read(data)
        elif len(data) == known.length:
            self._answer_again(known, data)
        elif len(data) < known.length and len(data) <= _MAX_ARRIVED_BYTES:
            self._arrived = data
            self._unset_keepalive_if_required()
            if self._is_late is None:
                self._expect_request()
        else:
            self._read(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_reading = True
        self._num_begun += 1
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {ON_DISCONNECT: []}
        self._expect_request()

    def on_message_complete(self) -> None:
        self._is_reading = False
        self._got_request()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._close_tls_in_time()

    def shutdown(self) -> None:
        """Close if nothing is being answered; a connection that has just been made may bring its request first."""
        self._read_arrived()
        if self.cycle is None and not self._is_told_to_close:
            self._is_told_to_close = True
            self.loop.call_later(_GRACE_S, self.shutdown)
            return
        super().shutdown()
        self._close_tls_in_time()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(400, msg)

    # --- requests that repeat another's head --------------------------------------------------------------------------

    def _is_free(self) -> bool:
        """Whether nothing is being read or answered, and the client takes what it is sent."""
        return self.cycle.response_complete and not (
            self._is_reading or self.flow.write_paused or self.transport.is_closing()
        )

    def _read(self, data: bytes) -> None:
        """Have uvicorn read what may be anything."""
        is_begun, num_begun = self._is_reading, self._num_begun
        super().data_received(data)
        # Of one request alone it is clear where its head is.
        if not is_begun and self._num_begun == num_begun + 1 and (head := _head_of(data)):
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]
            scope["extensions"][REPEATS] = partial(self._remember, head, self._num_begun)

    def _read_arrived(self) -> None:
        """A request that is not whole is uvicorn's after all."""
        data, self._arrived = self._arrived, b""
        if data:
            self._read(data)

    def _remember(self, head: bytes, number: int, begin: Begin[Response]) -> None:
        """Answer requests that will have this head by this function.

        Args: number: of the request that had it; nothing is remembered of any but the last.
        """
        if self._num_begun != number or not self.cycle.keep_alive:
            return
        headers = self.scope["headers"]
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        if len(lengths) != 1 or not _NOT_REPEATED.isdisjoint(name for name, _ in headers):
            return
        length = len(head) + lengths[0]
        if length <= _MAX_REPEATED_BYTES:
            self._known = _Known(head, length, begin)

    def _answer_again(self, known: _Known, data: bytes) -> None:
        self._got_request()
        self._unset_keepalive_if_required()
        repeated = _Repeated()
        self.cycle = repeated  # type: ignore[assignment]
        withdraw = known.begin(data[len(known.head) :], partial(self._reply, repeated))
        if withdraw is not None:
            repeated.scope["extensions"][ON_DISCONNECT].append(withdraw)

    def _reply(self, repeated: _Repeated, response: Response) -> None:
        assert not repeated.response_complete, "a second answer would be taken for the next request's"
        repeated.response_started = repeated.response_complete = True
        # It leads to this reply: a circle, which only the garbage collector would take apart.
        repeated.scope["extensions"][ON_DISCONNECT].clear()
        if self.transport.is_closing():
            return
        headers = [*self.server_state.default_headers, *response.headers]
        if not repeated.keep_alive and _CLOSE not in headers:
            headers.append(_CLOSE)
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[response.status], *lines, b"\r\n", response.body]))
        if _CLOSE in headers:
            self.transport.close()
        self.on_response_complete()

    # --- limits -------------------------------------------------------------------------------------------------------

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
        self._read_arrived()
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


def _head_of(data: bytes) -> bytes | None:
    """The head of a POST that begins here; None if it is not whole, or something else begins, if only a line end."""
    end = data.find(_HEAD_END, 0, _MAX_HEAD_BYTES)
    return data[: end + len(_HEAD_END)] if end > 0 and data.startswith(b"POST ") else None


def connection_class(*, receive_timeout_s: float, max_connections: int) -> type[Connection]:
    """Connections with these limits; uvicorn takes a class and gives it nothing of ours."""
    limits: dict[str, Any] = {"receive_timeout_s": receive_timeout_s, "max_connections": max_connections}
    return type("Connection", (Connection,), limits)
