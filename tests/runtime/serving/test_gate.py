"""Who may ask, by what name, and what a failed request leaves behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from runtime.serving.connections.bodies import Budget
from runtime.serving.connections.exchange import Reply, Scope, answer_to, respond, response
from runtime.serving.connections.gate import Gate
from runtime.serving.connections.hosts import host_name, is_loopback
from runtime.serving.errors import RequestError, UnavailableError
from runtime.serving.metrics import Metrics
from runtime.serving.settings import Settings, SettingsError

SETTINGS = Settings(Path("models"))
TOKEN = "a token of enough characters"


def ask(
    headers: Mapping[str, str], *, settings: Settings = SETTINGS, path: str = "/v2", method: str = "POST"
) -> tuple[int, str]:
    """Status and body of what the gate lets through, or does not."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await respond(send, response(b"in"))

    async def scenario() -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "http_version": "1.1", "headers": pairs}
        await Gate(app, settings=settings, metrics=Metrics())(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(scenario())
    return sent[0]["status"], sent[1]["body"].decode()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authority", "name", "is_ours"),
    [
        ("LocalHost:8000", "localhost", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9:1", "127.9.9.9", True),
        ("[::1]:8000", "::1", True),
        ("::1", "::1", True),
        ("a.localhost", "a.localhost", True),
        ("evil.example:8000", "evil.example", False),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example", False),
        ("localhost.evil.example", "localhost.evil.example", False),
        ("", "", False),
    ],
)
def test_names_of_this_machine_are_told_from_others(authority: str, name: str, is_ours: bool) -> None:
    assert (host_name(authority), is_loopback(host_name(authority))) == (name, is_ours)


def test_a_page_whose_name_was_made_to_lead_here_is_refused_whatever_it_asks() -> None:
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    for method in ("GET", "POST"):
        status, body = ask(rebound, method=method)
        assert (status, "evil.example" in body) == (403, True)
    assert ask({"host": "localhost:8000", "origin": "http://localhost:8000"})[0] == 200
    assert ask({"host": "localhost:8000", "origin": "http://localhost:3000"})[0] == 403


def test_probes_may_call_a_server_by_any_name() -> None:
    assert ask({"host": "10.0.0.7:8000"}, path="/v2/health/ready", method="GET")[0] == 200


def test_a_proxys_own_page_may_ask_under_the_name_that_was_allowed() -> None:
    behind = replace(SETTINGS, allowed_hosts=("models.example.com",))
    page = {"origin": "https://models.example.com"}
    assert ask({"host": "127.0.0.1:8000", **page}, settings=behind)[0] == 200
    assert ask({"host": "models.example.com", **page}, settings=behind)[0] == 200
    assert ask({"host": "evil.example", "origin": "http://evil.example"}, settings=behind)[0] == 403
    assert ask({"host": "127.0.0.1:8000", "origin": "https://evil.example"}, settings=behind)[0] == 403


def test_a_server_that_others_reach_goes_by_every_name_unless_some_are_allowed() -> None:
    public = replace(SETTINGS, host="0.0.0.0")
    assert ask({"host": "any.example"}, settings=public)[0] == 200
    assert ask({"host": "any.example"}, settings=replace(public, allowed_hosts=("other.example",)))[0] == 403


@pytest.mark.parametrize("host", ["https://a.example", "a.example:80", "A.example", ""])
def test_what_is_no_name_cannot_be_allowed(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^--allowed-host is"):
        replace(SETTINGS, allowed_hosts=(host,))


# --- heads ------------------------------------------------------------------------------------------------------------


def test_a_request_has_one_host() -> None:
    assert ask({}) == (400, '{"error":"a request must have one Host"}')
    assert ask({"host": "localhost, localhost"})[0] == 400


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_scheme_has_no_case(scheme: str) -> None:
    guarded = replace(SETTINGS, token=TOKEN)
    assert ask({"host": "localhost", "authorization": f"{scheme} {TOKEN}"}, settings=guarded)[0] == 200
    assert ask({"host": "localhost", "authorization": f"{scheme} {TOKEN}x"}, settings=guarded)[0] == 401
    assert ask({"host": "localhost", "authorization": f"Basic {TOKEN}"}, settings=guarded)[0] == 401


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_request_that_is_cancelled_at_shutdown_is_answered_and_counted() -> None:
    sent: list[Any] = []
    metrics = Metrics()

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "http_version": "1.1",
            "headers": [(b"host", b"localhost")],
        }
        gate = Gate(app, settings=SETTINGS, metrics=metrics)
        task = asyncio.create_task(gate(scope, None, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert (sent[0]["status"], orjson.loads(sent[1]["body"])) == (503, {"error": "the server is shutting down"})
    assert 'enas_http_requests{status="503"} 1.0' in metrics.exposition()
    assert 'status="0"' not in metrics.exposition()


@pytest.mark.parametrize("where", ["before", "begun"])
def test_a_failed_requests_body_is_let_go_with_it(where: str) -> None:
    size = 5 * 2**20

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        body = bytes(size)
        budget = Budget(size)
        if where == "before":
            budget.take(len(body))
            raise RequestError("it is wrong")

        def begin(body: bytes, reply: Reply) -> None:
            try:
                raise UnavailableError("it is full")
            except UnavailableError as error:
                reply(error.with_traceback(None))

        await answer_to(body, begin)

    async def scenario() -> None:
        gate = Gate(app, settings=SETTINGS, metrics=Metrics())

        async def send(message: Any) -> None:
            pass

        for _ in range(12):
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "http_version": "1.1",
                "headers": [(b"host", b"::1")],
            }
            await gate(scope, None, send)  # type: ignore[arg-type]

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        asyncio.run(scenario())
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < size
