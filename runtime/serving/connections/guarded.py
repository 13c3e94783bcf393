"""uvicorn's HTTP connection with what it lacks: limits of size, time and number, and errors as JSON."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runtime.serving.connections.exchange import Exchange, Response, error_response
from runtime.serving.connections.gate import PROBES
from runtime.serving.connections.limits import HeadSize, Uptake
from runtime.serving.errors import (
    HeadTooLargeError,
    LateError,
    OverloadError,
    RequestError,
    ServeError,
    UnavailableError,
)
from runtime.serving.settings import Settings

# At shutdown, the time for a new connection to send its first request, and for a TLS client to close.
_GRACE_S = 1.0
_TLS_GRACE_S = 5.0
_CLOSE = (b"connection", b"close")
# Requests that may wait on one connection.
_MAX_WAITING = 32
# Guests are connections beyond `max_connections`: each may send one probe, and later guests replace older ones.
_MAX_GUESTS = 64
_GUEST_S = 2.0
_PROBES = frozenset(path.encode() for path in PROBES)


class _Flow(FlowControl):
    """Flow control that reads no more data while requests wait on the connection."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class GuardedConnection(HttpToolsProtocol):
    """A connection with a client."""

    settings: ClassVar[Settings]
    guests: ClassVar[OrderedDict[GuardedConnection, None]]
    """The connections beyond `max_connections`, oldest first."""

    _deadline: asyncio.TimerHandle | None = None
    """For the request that is expected or arriving."""
    _idle_since_s: float | None = None
    """Time of the last answer; None while a request is expected, arriving, or being answered."""
    _is_told_to_close = False
    _is_reading = False
    """Whether the parser has begun a request that is still incomplete."""
    _has_head = False
    """Whether the head of that request is complete."""
    _refusal: ServeError | None = None
    """Why no more data is read; None if it is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._head_size = HeadSize()
        self._uptake = Uptake(self.settings.send_timeout_s)
        self._owed: deque[Exchange] = deque()
        """Exchanges of requests whose head has arrived and whose answer has not been sent, in order."""
        if len(self.connections) > self.settings.max_connections:
            if len(self.guests) >= _MAX_GUESTS:
                self.guests.popitem(last=False)[0]._turn_away(UnavailableError("too many connections"))
            self.guests[self] = None
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_request()
        self.guests.pop(self, None)
        super().connection_lost(exc)
        # References back to this connection would be cycles, which only the garbage collector frees.
        self.pipeline.clear()
        while self._owed:
            exchange = self._owed.popleft()
            exchange.go()
            exchange.end()
        if self.scope is not None:
            Exchange.of(self.scope).end()  # type: ignore[arg-type]

    def shutdown(self) -> None:
        """Close if nothing is being answered; a new connection may first send its request, within `_GRACE_S`."""
        if self.cycle is None and not self._is_told_to_close:
            self._is_told_to_close = True
            self.loop.call_later(_GRACE_S, self.shutdown)
            return
        super().shutdown()
        self._close_tls_in_time()

    def look(self, now_s: float) -> None:
        """Close the connection if it is idle or its client reads nothing. Must be called regularly."""
        if self._idle_since_s is not None and now_s - self._idle_since_s > self.settings.keep_alive_s:
            self.transport.close()
        if self._uptake.is_stalled(self.transport.get_write_buffer_size(), now_s=now_s):
            self.transport.abort()

    # --- what the parser finds ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_WAITING:
            raise OverloadError("too many requests wait for their turn on this connection")
        super().on_message_begin()
        self._is_reading, self._has_head = True, False
        self._head_size.begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        Exchange.of(scope)
        self._expect_request()

    def on_url(self, url: bytes) -> None:
        self._head_size.add(len(url), num_fields=0)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size.add(len(name) + len(value), num_fields=1)
        # Fields after a body (trailers) are ignored.
        if not self._has_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_size.parsed()
        self._head_size.begin()
        if self.parser.should_upgrade():
            # The parser expects no body now; `_ignore_upgrade` corrects that.
            return
        is_guest = self in self.guests
        if is_guest and self.url.partition(b"?")[0] not in _PROBES:
            raise UnavailableError("too many connections")
        self._has_head = True
        super().on_headers_complete()
        if is_guest:
            self.cycle.keep_alive = False
        self._owed.append(Exchange.of(self.scope))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._head_size.parsed()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_size.parsed()
        if self.parser.should_upgrade():
            return
        self._is_reading = False
        self._got_request()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._owed:
            self._owed.popleft().end()
        if self.pipeline:
            super().on_response_complete()
        elif not self.transport.is_closing():
            # uvicorn would set a timer here and cancel it at the next request, which is a tenth of a request's cost.
            self.flow.resume_reading()
            self._idle_since_s = time.monotonic()
        if self._refusal is not None:
            self._close_in_turn(self._refusal)
        self._close_tls_in_time()

    # --- reading ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.parser is None:
            return
        self._head_size.add_unparsed(len(data))
        try:
            self.parser.feed_data(data)
            self._head_size.check_unparsed()
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except HeadTooLargeError as error:
            self._end_reading(error)
        except httptools.HttpParserError as error:
            # If a callback raised, its exception is the context of the parser's error.
            told = error.__context__
            self._end_reading(told if isinstance(told, ServeError) else RequestError("Invalid HTTP request received."))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Ignore a request's upgrade to another protocol: read it again, with its body, in a new parser."""
        if self.parser.get_method() == b"CONNECT":
            self._end_reading(RequestError("this server is no proxy"))
            return
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([line, *fields, b"\r\n", rest]))

    def _expect_request(self) -> None:
        self._got_request()
        self._idle_since_s = None
        timeout_s = _GUEST_S if self in self.guests else self.settings.receive_timeout_s
        self._deadline = self.loop.call_later(timeout_s, self._be_late)

    def _got_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _be_late(self) -> None:
        self._end_reading(LateError(f"the request did not arrive within {self.settings.receive_timeout_s:g} s"))

    def _end_reading(self, error: ServeError) -> None:
        """Read no more data: complete requests are answered, then the error is sent and the connection closes."""
        # A traceback would refer back to this connection.
        self._refusal = error.with_traceback(None)
        self._got_request()
        self.flow.pause_reading()
        self._close_in_turn(error)

    # --- answering without an application -----------------------------------------------------------------------------

    def _close_in_turn(self, error: ServeError) -> None:
        has_part = self._is_reading and self._has_head
        if len(self._owed) > has_part:
            return
        if has_part and self.cycle.response_started:
            self.transport.close()
        else:
            self._turn_away(error)

    def _turn_away(self, error: ServeError) -> None:
        if not self.transport.is_closing():
            self._write(error_response(error), keeps_alive=False)

    def _write(self, answer: Response, *, keeps_alive: bool) -> None:
        headers = [*self.server_state.default_headers, *answer.headers]
        if not keeps_alive and _CLOSE not in headers:
            headers.append(_CLOSE)
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status], *lines, b"\r\n", answer.body]))
        if _CLOSE in headers:
            self.transport.close()

    def _close_tls_in_time(self) -> None:
        """Limit the time that a closing TLS connection waits for its client to close, up to half a minute otherwise."""
        if self.scheme == "https" and self.transport.is_closing():
            self.loop.call_later(_TLS_GRACE_S, self.transport.abort)
