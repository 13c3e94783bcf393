"""uvicorn's HTTP connection with what it leaves open: limits of every kind, and errors as JSON.

And with a fast path for requests that repeat the head of one before them (see `exchange`): they are taken where nothing
else is being read or answered, and pass by uvicorn's parser, which then has never seen them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import httptools
import orjson
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runtime.serving.exchange import Begin, Exchange, Response
from runtime.serving.gate import PROBES

# What is still on its way when a server stops: a first request, and TLS's last word.
_GRACE_S = 1.0
_TLS_GRACE_S = 5.0
# Of requests that may be repeated; a longer one takes its time on any way.
_MAX_REPEATED_BYTES = 128 * 1024
_MAX_HEAD_BYTES = 4096
# Kept until the rest of a repeated request comes; more than that is read on the slow path, which keeps account of it.
_MAX_ARRIVED_BYTES = 8192
_HEAD_END = b"\r\n\r\n"
# With any of these a head does not say by itself where its request ends, or asks for something first.
_NOT_REPEATED = frozenset({b"transfer-encoding", b"upgrade", b"expect"})
_CLOSE = (b"connection", b"close")
# Of a head, of the line before a chunk, or of the fields after the last one: the parser copies what it has of each
# whenever more of it comes.
_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 128
# Requests that may wait for their turn on one connection.
_MAX_WAITING = 32
# What a client must take of its answers to be waited for again.
_MIN_TAKEN_BYTES = 4096
# Beyond the last connection that is allowed: each may ask one probe, at once, and gives way to the next one.
_MAX_GUESTS = 64
_GUEST_S = 2.0
_PROBES = frozenset(path.encode() for path in PROBES)


@dataclass(frozen=True)
class Limits:
    """What a connection may take."""

    receive_timeout_s: float
    """For a whole request to arrive, and for the first one to begin."""
    send_timeout_s: float
    """For a client to take something of what it was sent."""
    max_connections: int


@dataclass(frozen=True)
class _Known:
    """The head of a request that was answered."""

    head: bytes
    length: int
    """Bytes of the head and of the body that it announces."""
    begin: Begin


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


_UNHEARD = _Unheard()


class _Repeated(Exchange):
    """A repeated request that is being answered; with what uvicorn looks at of its `RequestResponseCycle`."""

    response_started = response_complete = disconnected = False
    keep_alive = True
    message_event = _UNHEARD


class _Refused(Exception):  # noqa: N818
    """Raised through the parser: nothing more of this connection is read."""


class _Flow(FlowControl):
    """Reads nothing more while requests wait for their turn."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """A connection with a client."""

    limits: ClassVar[Limits]
    guests: ClassVar[dict[Connection, None]]
    """Oldest first."""

    _is_late: asyncio.TimerHandle | None = None
    _is_told_to_close = False
    _is_reading = False
    """A request has begun and is not whole; of those that the parser sees."""
    _has_head = False
    """Of that request."""
    _num_fields = _num_field_bytes = 0
    """Of its head, or of what follows its last chunk."""
    _num_unparsed = 0
    """Bytes since the parser last told of something whole."""
    _refusal: tuple[int, str] | None = None
    """Status and message of why nothing more is read; 0 says nothing."""
    _num_begun = 0
    _known: _Known | None = None
    _arrived = b""
    """Of a repeated request that is not whole."""
    _num_unsent = 0
    _taken_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._owed: deque[Exchange] = deque()
        """Of requests whose head has come and whose answer has not gone, in their order."""
        if len(self.connections) > self.limits.max_connections:
            self._be_guest()
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_request()
        self.guests.pop(self, None)
        super().connection_lost(exc)
        # What leads back here only the garbage collector would take apart.
        self._known, self._arrived = None, b""
        self.pipeline.clear()
        while self._owed:
            exchange = self._owed.popleft()
            exchange.go()
            exchange.end()
        if self.scope is not None:
            Exchange.of(self.scope).end()  # type: ignore[arg-type]

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
        if len(self.pipeline) >= _MAX_WAITING:
            self._refuse(0, "too many requests wait for their turn")
        super().on_message_begin()
        self._is_reading, self._has_head = True, False
        self._num_begun += 1
        self._num_fields = self._num_field_bytes = 0
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        Exchange.of(scope)
        self._expect_request()

    def on_url(self, url: bytes) -> None:
        self._count_field(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._num_fields += 1
        self._count_field(len(name) + len(value))
        # What follows a body comes too late to say anything of its request.
        if not self._has_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._num_unparsed = self._num_fields = self._num_field_bytes = 0
        if self.parser.should_upgrade():
            # The parser takes it that no body follows, and is put right in `_ignore_upgrade`.
            return
        if self in self.guests and self.url.partition(b"?")[0] not in _PROBES:
            self._refuse(503, "too many connections")
        self._has_head = True
        super().on_headers_complete()
        if self in self.guests:
            self.cycle.keep_alive = False
        self._owed.append(Exchange.of(self.scope))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._num_unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_unparsed = 0
        if self.parser.should_upgrade():
            return
        self._is_reading = False
        self._got_request()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._owed:
            self._owed.popleft().end()
        super().on_response_complete()
        if self._refusal is not None:
            self._close_in_turn(*self._refusal)
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

    def forget(self) -> None:
        """Read the next request anew, whatever its head."""
        self._known = None

    def give_up(self) -> None:
        """Time is up: end a repeated request, which is no task that could be cancelled."""
        if isinstance(self.cycle, _Repeated) and not self.cycle.response_complete:
            self.cycle.go()
            self._turn_away(503, "the server is shutting down")

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Have uvicorn read what may be anything."""
        is_begun, num_begun = self._is_reading, self._num_begun
        self._unset_keepalive_if_required()
        self._parse(data)
        # Of one request alone it is clear where its head is.
        if not is_begun and self._num_begun == num_begun + 1 and (head := _head_of(data)):
            exchange = Exchange.of(self.scope)  # type: ignore[arg-type]
            exchange.remember = partial(self._remember, head, self._num_begun)

    def _parse(self, data: bytes) -> None:
        if self._refusal is not None or self.parser is None:
            return
        self._num_unparsed += len(data)
        try:
            self.parser.feed_data(data)
            if self._num_unparsed > _MAX_FIELD_BYTES:
                self._refuse(431, _TOO_LONG)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except (_Refused, httptools.HttpParserError):
            self._end_reading(*(self._refusal or (400, "Invalid HTTP request received.")))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request that wants another protocol as one that does not: with its body, by a parser of its own."""
        if self.parser.get_method() == b"CONNECT":
            self._end_reading(400, "this server is no proxy")
            return
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"".join([line, *fields, b"\r\n", rest]))

    def _count_field(self, num_bytes: int) -> None:
        self._num_field_bytes += num_bytes
        if self._num_field_bytes > _MAX_FIELD_BYTES or self._num_fields > _MAX_FIELDS:
            self._refuse(431, _TOO_LONG)

    def _refuse(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        raise _Refused

    def _end_reading(self, status: int, message: str) -> None:
        """Take nothing more of a connection: what came whole is answered, then this is said, and it closes."""
        self._refusal = (status, message)
        self._got_request()
        self.flow.pause_reading()
        self._close_in_turn(status, message)

    def _close_in_turn(self, status: int, message: str) -> None:
        has_part = self._is_reading and self._has_head
        if len(self._owed) > has_part:
            return
        if status == 0 or (has_part and self.cycle.response_started):
            self.transport.close()
        else:
            self._turn_away(status, message)

    def _expect_request(self) -> None:
        self._got_request()
        timeout_s = _GUEST_S if self in self.guests else self.limits.receive_timeout_s
        self._is_late = self.loop.call_later(timeout_s, self._give_up)

    def _got_request(self) -> None:
        if self._is_late is not None:
            self._is_late.cancel()
            self._is_late = None

    def _give_up(self) -> None:
        self._read_arrived()
        self._end_reading(408, f"the request did not arrive within {self.limits.receive_timeout_s:g} s")

    # --- requests that repeat another's head --------------------------------------------------------------------------

    def _is_free(self) -> bool:
        """Whether nothing is being read or answered, and the client takes what it is sent."""
        return self.cycle.response_complete and not (
            self._is_reading or self.flow.write_paused or self.transport.is_closing()
        )

    def _read_arrived(self) -> None:
        """A request that is not whole is uvicorn's after all."""
        data, self._arrived = self._arrived, b""
        if data:
            self._read(data)

    def _remember(self, head: bytes, number: int, begin: Begin) -> None:
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
        self._owed.append(repeated)
        withdraw = known.begin(data[len(known.head) :], partial(self._reply, repeated))
        if withdraw is not None:
            repeated.when_gone(withdraw)

    def _reply(self, repeated: _Repeated, outcome: Response | Exception) -> None:
        assert isinstance(outcome, Response), "the gate makes answers of errors"
        assert not repeated.response_complete, "a second answer would be taken for the next request's"
        repeated.response_started = repeated.response_complete = True
        if self.transport.is_closing():
            return
        headers = [*self.server_state.default_headers, *outcome.headers]
        if not repeated.keep_alive and _CLOSE not in headers:
            headers.append(_CLOSE)
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[outcome.status], *lines, b"\r\n", outcome.body]))
        if _CLOSE in headers:
            self.transport.close()
        self.on_response_complete()

    # --- limits -------------------------------------------------------------------------------------------------------

    def look(self, now_s: float) -> None:
        """Give up a client that takes nothing of its answers. To be called every now and then."""
        num_unsent = self.transport.get_write_buffer_size()
        if num_unsent <= max(0, self._num_unsent - _MIN_TAKEN_BYTES):
            self._num_unsent, self._taken_s = num_unsent, now_s
        elif num_unsent > self._num_unsent:
            if self._num_unsent == 0:
                self._taken_s = now_s
            self._num_unsent = num_unsent
        elif now_s - self._taken_s > self.limits.send_timeout_s:
            self.transport.abort()

    def _be_guest(self) -> None:
        if len(self.guests) >= _MAX_GUESTS:
            oldest = next(iter(self.guests))
            del self.guests[oldest]
            oldest._turn_away(503, "too many connections")
        self.guests[self] = None

    def _close_tls_in_time(self) -> None:
        """A closing TLS connection waits for the client to close too, which may take half a minute."""
        if self.scheme == "https" and self.transport.is_closing():
            self.loop.call_later(_TLS_GRACE_S, self.transport.abort)

    def _turn_away(self, status: int, message: str) -> None:
        """Answer without an application, and close."""
        if self.transport.is_closing():
            return
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        body = orjson.dumps({"error": message})
        head = b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
        self.transport.write(head % (STATUS_LINE[status], len(body), retry) + body)
        self.transport.close()


_TOO_LONG = f"a request's head has at most {_MAX_FIELD_BYTES:,} bytes and {_MAX_FIELDS} fields"


def _head_of(data: bytes) -> bytes | None:
    """The head of a POST that begins here; None if it is not whole, or something else begins, if only a line end."""
    end = data.find(_HEAD_END, 0, _MAX_HEAD_BYTES)
    return data[: end + len(_HEAD_END)] if end > 0 and data.startswith(b"POST ") else None


def connection_class(limits: Limits) -> type[Connection]:
    """Connections with these limits; uvicorn takes a class and gives it nothing of ours."""
    return type("Connection", (Connection,), {"limits": limits, "guests": {}})
