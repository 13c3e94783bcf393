"""The gate around the application: access control, request ids, errors in the protocol's form, counts and logs."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from starlette.exceptions import HTTPException

from runtime.serving.connections.bodies import Disconnected
from runtime.serving.connections.exchange import (
    Begin,
    Exchange,
    Message,
    Receive,
    Reply,
    Response,
    Scope,
    Send,
    Withdraw,
    error_response,
    respond,
)
from runtime.serving.connections.hosts import host_name, is_loopback
from runtime.serving.errors import ForbiddenError, RequestError, ServeError, UnauthorizedError, UnavailableError
from runtime.serving.metrics import Metrics
from runtime.serving.settings import Settings

App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = frozenset({"/v2/health/live", "/v2/health/ready"})
# Probes send no token, and the page shows nothing until it has one.
_OPEN_PATHS = PROBES | {"/", "/docs", "/openapi.json"}
# An id is a random number of this process and a counter: a random number per request would cost a system call.
_PROCESS = os.urandom(4).hex()
_NUMBERS = itertools.count()
# nginx's status for a request whose client disconnected before its answer.
_GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

log = logging.getLogger(__name__)


class Gate:
    """An ASGI application around another."""

    is_draining = False
    """Whether the server is stopping: it reports not ready, but still answers."""

    def __init__(self, app: App, *, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self.settings = settings
        self.metrics = metrics
        self.token = settings.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange.of(scope)
        exchange.headers = _by_name(scope["headers"])
        visit = _Visit(self, _line(scope, exchange.headers))
        if (remember := exchange.remember) is not None:
            exchange.remember = lambda begin: remember(self._again(begin, visit))
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = visit.marked(message.get("headers", ()))
            await send(message)

        try:
            self._admit(scope, exchange.headers)
            # Without "app", starlette's router answers errors in plain text.
            scope["app"] = self
            await self._app(scope, receive, send_marked)
        except Disconnected:
            visit.end(status or _GONE)
        except asyncio.CancelledError:
            if not (status or exchange.is_gone):
                await respond(send_marked, error_response(UnavailableError("the server is shutting down")))
            visit.end(status or _GONE)
        except Exception as error:
            if status == 0:
                await respond(send_marked, error_response(error))
            visit.end(status, error)
        else:
            visit.end(status)

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Check that a request is allowed.

        Raises: UnauthorizedError: the token is missing or wrong. ForbiddenError: the server does not have the name in
            `Host`, or a page of another site sent the request through a browser. RequestError: there are several `Host`
            headers, or none in HTTP/1.1.
        """
        path: str = scope["path"]
        host, allowed = headers.get("host"), self.settings.allowed_hosts
        if (host is None and scope["http_version"] == "1.1") or "," in (host or ""):
            raise RequestError("a request must have one Host")
        is_private = self.settings.is_loopback or bool(allowed)
        name = host_name(host or "localhost")
        if is_private and path not in PROBES and not (is_loopback(name) or name in allowed):
            raise ForbiddenError(f"this server does not go by the name of {name[:80]} (enas serve --allowed-host)")
        if self.token is not None and path not in _OPEN_PATHS and not path.startswith("/web/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
            if not (is_right and scheme.lower() == "bearer"):
                raise UnauthorizedError("this server needs a token: Authorization: Bearer …")
        origin = headers.get("origin")
        if origin is not None and scope["method"] != "GET":
            page = origin.partition("://")[2]
            if page != host and host_name(page) not in allowed:
                raise ForbiddenError(f"a page of {origin[:80]} may not use this server")

    def _again(self, begin: Begin, first: _Visit) -> Begin:
        """Wrap `begin` for requests that repeat the head of an admitted request: count and log them."""

        def begin_marked(body: bytes, reply: Reply) -> Withdraw | None:
            visit = _Visit(self, first.line)

            def reply_marked(outcome: Response | Exception) -> None:
                error = None
                if isinstance(outcome, Exception):
                    error, outcome = outcome, error_response(outcome)
                reply(Response(outcome.status, visit.marked(outcome.headers), outcome.body))
                visit.end(outcome.status, error)

            try:
                withdraw = begin(body, reply_marked)
            except Exception as error:
                reply_marked(error)
                return None
            if withdraw is None:
                return None

            def withdraw_marked() -> None:
                withdraw()
                visit.end(_GONE)

            return withdraw_marked

        return begin_marked


class _Line(NamedTuple):
    """The parts of a request's head that are logged."""

    method: str
    path: str
    request_id: str | None
    """The client's, if it sent a valid one."""


class _Visit:
    """A request from arrival to answer, on either path."""

    __slots__ = ("_gate", "_request_id", "_start_s", "line")

    def __init__(self, gate: Gate, line: _Line) -> None:
        self._gate = gate
        self.line = line
        self._start_s = time.perf_counter()
        self._request_id = line.request_id or f"{_PROCESS}{next(_NUMBERS):08x}"

    def marked(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """A response's headers with the request's id and, while draining, `Connection: close`."""
        marked = [*headers, (b"x-request-id", self._request_id.encode())]
        if self._gate.is_draining:
            # The client sends its next request to another server, and loses none on a connection that we close.
            marked.append((b"connection", b"close"))
        return marked

    def end(self, status: int, error: Exception | None = None) -> None:
        """Count the request; log it if it failed by the server's fault, or if the access log is on."""
        self._gate.metrics.responded(status)
        is_ours = error is not None and not isinstance(error, (ServeError, HTTPException))
        if not (is_ours or status == 500 or self._gate.settings.access_log):
            return
        fields = {
            "request_id": self._request_id,
            "method": self.line.method,
            "path": self.line.path,
            "status": status,
            "ms": round((time.perf_counter() - self._start_s) * 1e3, 3),
        }
        if error is not None:
            fields["error"] = str(error)
        level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
        log.log(level, "request", extra=fields, exc_info=error if is_ours else None)


def _line(scope: Scope, headers: Mapping[str, str]) -> _Line:
    given = headers.get("x-request-id", "")
    return _Line(scope["method"], scope["path"], given if _REQUEST_ID.fullmatch(given) else None)


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; values with the same name are joined by commas, as HTTP defines."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
