"""One request and its answer, shared by its connection, the gate and the endpoint that answers it.

A client that sends many requests sends the same head every time. Its content, its permission and its route are then
known, so such a request goes directly to the function that the first one registered (`Exchange.remember`). It skips the
parser, the task and the layers, which take most of the time of a small network's answer. The first request is answered
by the same function, after its body has come through ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from starlette.exceptions import HTTPException

from runtime.serving.errors import ServeError, UnauthorizedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGE_BYTES = 128 * 1024
"""A larger body is read in a thread, so that others are answered meanwhile; reading it dominates the time on any path.

A larger request never takes the fast path. There it would not count among its model's users, so the model could be
closed while a thread reads the body; a smaller one is in the model's queue as soon as it begins.
"""
_KEY = "enas.exchange"


class Response(NamedTuple):
    """A whole HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes


Reply = Callable[[Response | Exception], None]
"""Called once, in the event loop, with the answer or the error."""
Withdraw = Callable[[], None]
Begin = Callable[[bytes, Reply], Withdraw | None]
"""Begins to answer a body: replies later, or immediately.

Returns a function to call when the client disconnects, after which there is no reply; None if it has already replied.
"""


class Exchange:
    """Data about a request in addition to its ASGI scope, in which it is stored."""

    # Class attributes as defaults, since an instance is created for every request.
    remember: Callable[[Begin], None] | None = None
    """Registers a function that answers later requests of this connection with exactly the same head.

    It is used for requests that arrive while the connection is idle, until another head is remembered; other requests
    are read and routed as usual. None if there is no fast path. The gate wraps it, as it wraps `send`.
    """
    headers: Mapping[str, str] = MappingProxyType({})
    """By lower-case name; the gate fills them in."""
    is_gone = False
    """Whether the client disconnected before its answer was sent."""
    on_gone: Callable[[], object] | None = None
    """Called if the client disconnects before its answer was sent."""

    @classmethod
    def of(cls, scope: Scope) -> Exchange:
        """The exchange of a request; a new one if the server is not ours."""
        extensions = scope.setdefault("extensions", {})
        found = extensions.get(_KEY)
        if found is None:
            found = extensions[_KEY] = cls()
        assert isinstance(found, cls)
        return found

    def go(self) -> None:
        """Record that the client disconnected, and call `on_gone`."""
        self.is_gone = True
        if (call := self.on_gone) is not None:
            self.on_gone = None
            call()

    def end(self) -> None:
        """Drop the references to the connection: they would be cycles, which only the garbage collector frees."""
        self.remember = self.on_gone = None


async def answer_to(body: bytes, begin: Begin) -> Response:
    """The reply of `begin`; if the caller is cancelled, it is withdrawn. Raises: the exception that `begin` replies."""
    outcomes: list[Response | Exception] = []
    has_come = asyncio.Event()

    def reply(outcome: Response | Exception) -> None:
        outcomes.append(outcome)
        has_come.set()

    withdraw = begin(body, reply)
    try:
        await has_come.wait()
    except asyncio.CancelledError:
        if withdraw is not None:
            withdraw()
        raise
    outcome = outcomes.pop()
    if isinstance(outcome, Response):
        return outcome
    try:
        raise outcome
    finally:
        # The error refers to this frame and so to the body: a cycle, which only the garbage collector frees.
        del outcome


def response(
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Response:
    return Response(
        status, [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers], body
    )


def error_response(error: Exception) -> Response:
    """An error in the protocol's form: `{"error": …}`."""
    headers: list[tuple[bytes, bytes]] = []
    match error:
        case ServeError():
            status, message = error.status, str(error)
            if error.retry_after_s is not None:
                headers.append((b"retry-after", str(error.retry_after_s).encode()))
            if isinstance(error, UnauthorizedError):
                headers.append((b"www-authenticate", b"Bearer"))
        case HTTPException():
            status, message = error.status_code, error.detail
            headers += [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
        case _:
            # The log has the error, with the request's id.
            status, message = 500, "internal error"
    return response(orjson.dumps({"error": message}), status=status, headers=headers)


async def respond(send: Send, whole: Response) -> None:
    await send({"type": "http.response.start", "status": whole.status, "headers": whole.headers})
    await send({"type": "http.response.body", "body": whole.body})
