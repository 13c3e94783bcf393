"""One request and its answer, as its connection, the gate and whoever answers it see them.

A client that asks again and again sends the same head every time. What a head says, whether its sender may ask and
where it leads are known by then, so such a request goes straight to the function that the first one left behind
(`Exchange.remember`). It skips the parser, the task and the layers, which take most of the time of a small network's
answer. The first one is answered by the same function, after its body has come by ASGI's way.
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
"""A body above this is read in a thread, so that others are answered meanwhile; it takes most of the time on any path.

No larger request is answered by what is remembered of its head. Its model's users are not told of such a request, so
that the model could be closed while a thread reads it; a smaller one is in the model's queue as soon as it begins.
"""
_KEY = "enas.exchange"


class Response(NamedTuple):
    """A whole HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes


Reply = Callable[[Response | Exception], None]
"""Called once, in the event loop, with the answer or with why there is none."""
Withdraw = Callable[[], None]
Begin = Callable[[bytes, Reply], Withdraw | None]
"""Begins to answer a body: replies later, or at once.

Returns a function to call when the client disconnects, after which there is no reply; None if it has replied already.
"""


class Exchange:
    """What is known of a request beside its ASGI scope, in which it is kept."""

    # Defaults of the class, since an instance is made for every request.
    remember: Callable[[Begin], None] | None = None
    """Has later requests of this connection that have the same head, to the byte, answered by this function.

    It is used for those that come while the connection is idle, until another head is remembered; others are read and
    routed anew. None where there can be none. The gate puts itself in between, as it does with `send`.
    """
    headers: Mapping[str, str] = MappingProxyType({})
    """By lower-case name; the gate fills them in."""
    is_gone = False
    """The client went before its answer came."""
    on_gone: Callable[[], object] | None = None
    """Called when the client goes before its answer came."""

    @classmethod
    def of(cls, scope: Scope) -> Exchange:
        """The exchange of a request; a new one under another server than ours."""
        extensions = scope.setdefault("extensions", {})
        found = extensions.get(_KEY)
        if found is None:
            found = extensions[_KEY] = cls()
        assert isinstance(found, cls)
        return found

    def go(self) -> None:
        """The client has gone."""
        self.is_gone = True
        if (call := self.on_gone) is not None:
            self.on_gone = None
            call()

    def end(self) -> None:
        """It is answered. References to the connection would be cycles, left to the garbage collector."""
        self.remember = self.on_gone = None


async def answer_to(body: bytes, begin: Begin) -> Response:
    """What `begin` replies; who is cancelled withdraws. Raises: what it replies instead of an answer."""
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
        # The error refers to this frame and so to the body: a cycle, left to the garbage collector.
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
    """An error as the protocol has it: `{"error": …}`."""
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
            # The log has the error, beside the request's id.
            status, message = 500, "internal error"
    return response(orjson.dumps({"error": message}), status=status, headers=headers)


async def respond(send: Send, whole: Response) -> None:
    await send({"type": "http.response.start", "status": whole.status, "headers": whole.headers})
    await send({"type": "http.response.body", "body": whole.body})
