"""What every request passes through: who may ask, a request's id, errors as the protocol has them, counts and logs."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from starlette.exceptions import HTTPException

from runtime.serving.bodies import Disconnected, Receive
from runtime.serving.errors import ForbiddenError, ServeError, UnauthorizedError
from runtime.serving.extensions import ON_DISCONNECT, REPEATS, Begin, Response
from runtime.serving.metrics import Metrics
from runtime.serving.settings import Settings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Probes carry no token, and the page shows nothing until it has one.
_OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
# Ids of ours count on from a number that no other process has: randomness costs a call of the system.
_PROCESS = os.urandom(4).hex()
_NUMBERS = itertools.count()
# nginx's status of a request whose client went first.
_GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

log = logging.getLogger(__name__)


@dataclass
class Phase:
    """Where a server is in its life."""

    is_leaving: bool = False
    """It was told to stop: not ready, though it still answers."""


class _Line(NamedTuple):
    """A request's."""

    method: str
    path: str


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: App, *, settings: Settings, metrics: Metrics, phase: Phase) -> None:
        self._app = app
        self._settings = settings
        self._token = f"Bearer {settings.token}".encode() if settings.token else None
        self._metrics = metrics
        self._phase = phase

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        line = _Line(scope["method"], scope["path"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scope["enas.headers"] = headers
        request_id = _request_id(headers)
        extensions = scope.get("extensions", {})
        if (repeats := extensions.get(REPEATS)) is not None:
            extensions[REPEATS] = lambda begin: repeats(self._again(begin, line, headers))
        status = 0

        async def send_marked(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._marked(message.get("headers", ()), request_id)
            await send(message)

        error: Exception | None = None
        try:
            self._admit(scope, headers)
            # starlette's router answers plain text where it is no part of a starlette application.
            scope["app"] = self
            await self._app(scope, receive, send_marked)
        except (Disconnected, asyncio.CancelledError) as gone:
            if isinstance(gone, asyncio.CancelledError) and not scope.get("enas.is_gone"):
                raise
            status = status or _GONE
        except Exception as caught:
            error = caught
            if status == 0:
                await respond(send_marked, error_response(caught))
        finally:
            self._metrics.responded(status)
        self._log(line, request_id, status=status, error=error, seconds=time.perf_counter() - start)

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raises: UnauthorizedError: no token. ForbiddenError: a page of another site asks through a browser."""
        path: str = scope["path"]
        if self._token is not None and path not in _OPEN_PATHS and not path.startswith("/web/"):
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._token):
                raise UnauthorizedError("this server needs a token: Authorization: Bearer …")
        origin = headers.get("origin")
        if origin is not None and scope["method"] != "GET" and origin.partition("://")[2] != headers.get("host"):
            raise ForbiddenError(f"a page of {origin[:80]} may not use this server")

    def _again(self, begin: Begin[Response | Exception], line: _Line, headers: Mapping[str, str]) -> Begin[Response]:
        """What lets in, counts and logs requests that repeat the head of one that was let in."""

        def begin_marked(body: bytes, reply: Callable[[Response], None]) -> Callable[[], None] | None:
            start = time.perf_counter()
            request_id = _request_id(headers)

            def end(status: int, error: Exception | None = None) -> None:
                self._metrics.responded(status)
                self._log(line, request_id, status=status, error=error, seconds=time.perf_counter() - start)

            def reply_marked(outcome: Response | Exception) -> None:
                error = outcome if isinstance(outcome, Exception) else None
                status, head, content = error_response(outcome) if isinstance(outcome, Exception) else outcome
                reply(Response(status, self._marked(head, request_id), content))
                end(status, error)

            try:
                withdraw = begin(body, reply_marked)
            except Exception as error:
                reply_marked(error)
                return None
            if withdraw is None:
                return None

            def leave() -> None:
                withdraw()
                end(_GONE)

            return leave

        return begin_marked

    def _marked(self, headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        """A response's headers with the request's id, and word that we leave."""
        marked = [*headers, (b"x-request-id", request_id.encode())]
        if self._phase.is_leaving:
            # The client takes its next request elsewhere, and loses none on a connection that we close.
            marked.append((b"connection", b"close"))
        return marked

    def _log(self, line: _Line, request_id: str, *, status: int, error: Exception | None, seconds: float) -> None:
        is_ours = error is not None and not isinstance(error, (ServeError, HTTPException))
        if not (is_ours or status == 500 or self._settings.access_log):
            return
        fields = {
            "request_id": request_id,
            "method": line.method,
            "path": line.path,
            "status": status,
            "ms": round(seconds * 1e3, 3),
        }
        if error is not None:
            fields["error"] = str(error)
        level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
        log.log(level, "request", extra=fields, exc_info=error if is_ours else None)


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
            # Whatever it was is in the log, beside the request's id.
            status, message = 500, "internal error"
    return response(orjson.dumps({"error": message}), status=status, headers=headers)


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


async def respond(send: Send, whole: Response) -> None:
    await send({"type": "http.response.start", "status": whole.status, "headers": whole.headers})
    await send({"type": "http.response.body", "body": whole.body})


def _request_id(headers: Mapping[str, str]) -> str:
    """The client's own, if it is a decent one."""
    given = headers.get("x-request-id", "")
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):08x}"


def cancel_when_gone(scope: Scope) -> None:
    """Cancel the running task when its client goes before the answer came."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        scope["enas.is_gone"] = True
        task.cancel()

    scope.get("extensions", {}).get(ON_DISCONNECT, []).append(cancel)
