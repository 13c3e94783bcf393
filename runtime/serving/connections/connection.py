"""A connection with a fast path for requests that repeat the head of an earlier one (see `exchange`).

It is used only while nothing else is being read or answered, and skips uvicorn's parser.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from runtime.serving.connections.exchange import LARGE_BYTES, Begin, Exchange, Response
from runtime.serving.connections.guarded import GuardedConnection
from runtime.serving.errors import UnavailableError
from runtime.serving.settings import Settings

_MAX_HEAD_BYTES = 4096
# Kept until the rest of a repeated request arrives; more bytes are read on the slow path, which counts them.
_MAX_ARRIVED_BYTES = 8192
_HEAD_END = b"\r\n\r\n"
# With any of these the head does not determine the end of its request, or the client waits for a reply first.
_NOT_REPEATED = frozenset({b"transfer-encoding", b"upgrade", b"expect"})


@dataclass(frozen=True)
class _Known:
    """The head of a request that was answered."""

    head: bytes
    length: int
    """Bytes of the head and of the body after it."""
    begin: Begin


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


class _Repeated(Exchange):
    """A repeated request that is being answered; has the fields of `RequestResponseCycle` that uvicorn reads."""

    response_started = response_complete = disconnected = False
    keep_alive = True
    message_event = _Unheard()


class Connection(GuardedConnection):
    """A connection with a client."""

    _num_begun = 0
    _known: _Known | None = None
    _arrived = b""
    """Bytes of an incomplete repeated request."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._known, self._arrived = None, b""

    def data_received(self, data: bytes) -> None:
        data, self._arrived = self._arrived + data, b""
        known = self._known
        if known is None or not self._is_free() or not data.startswith(known.head):
            self._read(data)
        elif len(data) == known.length:
            self._answer_again(known, data)
        elif len(data) < known.length and len(data) <= _MAX_ARRIVED_BYTES:
            self._arrived = data
            if self._deadline is None:
                self._expect_request()
        else:
            self._read(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._num_begun += 1

    def shutdown(self) -> None:
        self._read_arrived()
        super().shutdown()

    def forget(self) -> None:
        """Read the next request on the slow path, whatever its head."""
        self._known = None

    def give_up(self) -> None:
        """End a repeated request at the end of the exit timeout; it has no task to cancel."""
        if isinstance(self.cycle, _Repeated) and not self.cycle.response_complete:
            self.cycle.go()
            self._turn_away(UnavailableError("the server is shutting down"))

    def _is_free(self) -> bool:
        """Whether nothing is being read or answered, and the client reads its answers."""
        return self.cycle.response_complete and not (
            self._is_reading or self.flow.write_paused or self.transport.is_closing()
        )

    def _read(self, data: bytes) -> None:
        """Have uvicorn read data that is not a repeated request."""
        is_begun, num_begun = self._is_reading, self._num_begun
        super().data_received(data)
        # The position of the head is known only if the data begins with it, and no other request begins in the data.
        if not is_begun and self._num_begun == num_begun + 1 and (head := _head_of(data)):
            exchange = Exchange.of(self.scope)  # type: ignore[arg-type]
            exchange.remember = partial(self._remember, head, self._num_begun)

    def _read_arrived(self) -> None:
        """Have uvicorn read the bytes that have arrived of a repeated request."""
        if data := self._arrived:
            self._arrived = b""
            self._read(data)

    def _be_late(self) -> None:
        self._read_arrived()
        super()._be_late()

    def _remember(self, head: bytes, number: int, begin: Begin) -> None:
        """Answer later requests with this head by this function.

        Args: number: of the request that had the head; only the last request is remembered.
        """
        if self._num_begun != number or not self.cycle.keep_alive:
            return
        headers = self.scope["headers"]
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        if len(lengths) != 1 or not _NOT_REPEATED.isdisjoint(name for name, _ in headers):
            return
        length = len(head) + lengths[0]
        if length <= LARGE_BYTES:
            self._known = _Known(head, length, begin)

    def _answer_again(self, known: _Known, data: bytes) -> None:
        self._got_request()
        self._idle_since_s = None
        repeated = _Repeated()
        self.cycle = repeated  # type: ignore[assignment]
        self._owed.append(repeated)
        withdraw = known.begin(data[len(known.head) :], partial(self._reply, repeated))
        if withdraw is not None:
            repeated.on_gone = withdraw

    def _reply(self, repeated: _Repeated, outcome: Response | Exception) -> None:
        assert isinstance(outcome, Response), "the gate makes answers of errors"
        assert not repeated.response_complete, "a second answer would be taken for the next request's"
        repeated.response_started = repeated.response_complete = True
        if not self.transport.is_closing():
            self._write(outcome, keeps_alive=repeated.keep_alive)
            self.on_response_complete()


def _head_of(data: bytes) -> bytes | None:
    """The head of a POST that begins the data; None if it is incomplete, or anything else comes first."""
    end = data.find(_HEAD_END, 0, _MAX_HEAD_BYTES)
    return data[: end + len(_HEAD_END)] if end > 0 and data.startswith(b"POST ") else None


def connection_class(settings: Settings) -> type[Connection]:
    """The class of connections with these settings; a class, since uvicorn creates its instances without them."""
    return type("Connection", (Connection,), {"settings": settings, "guests": OrderedDict()})
