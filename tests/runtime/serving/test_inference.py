"""Requests through connection, gate and model, without a network or a process between."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from runtime.serving.app import App
from runtime.serving.connections.connection import Connection, connection_class
from runtime.serving.endpoints import inference
from runtime.serving.metrics import Metrics
from runtime.serving.models.repository import Repository
from runtime.serving.settings import Settings
from tests.runtime.serving.attacks import post
from tests.runtime.serving.clients import REQUEST
from tests.runtime.serving.conftest import INFER, binary_request, pixels
from tests.runtime.serving.echo import Transport


@asynccontextmanager
async def connecting(model_path: Path, **options: Any) -> AsyncIterator[Callable[[], tuple[Connection, Transport]]]:
    """What makes connections with a server of this model. Args: options: of its `Settings`."""
    settings, metrics = Settings(model_path, provider="cpu", **options), Metrics()
    repository = Repository(settings, metrics)
    app = App(repository, settings=settings, metrics=metrics)
    connections = connection_class(settings)
    config = uvicorn.Config(
        app.build(asyncio.Event().wait, loads_first=True),  # type: ignore[arg-type]
        http=connections,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
    )
    state = ServerState()
    await repository.load_all()

    def connect() -> tuple[Connection, Transport]:
        connection, transport = connections(config, state, {}), Transport()
        connection.connection_made(transport)
        return connection, transport

    yield connect
    await repository.close()


@pytest.mark.parametrize("is_large", [False, True], ids=["in the event loop", "in a thread"])
def test_answered_and_failed_requests_leave_nothing_for_the_garbage_collector(
    model_path: Path, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left to it keeps bodies alive, and costs a busy server a tenth of its time."""
    if is_large:
        monkeypatch.setattr(inference, "LARGE_BYTES", 0)
    wrong = binary_request(pixels(0))[0].replace(b"UINT8", b"UINT9")
    counts = []

    async def scenario() -> None:
        async with connecting(model_path) as connect:
            connection, transport = connect()

            async def ask(body: bytes, num_answers: int) -> None:
                connection.data_received(post(INFER, body, REQUEST[1]))
                while transport.sent.count(b"HTTP/1.1 ") < num_answers:
                    await asyncio.sleep(0.001)

            await ask(REQUEST[0], 1)
            for body in (REQUEST[0], wrong):
                gc.collect()
                gc.disable()
                transport.sent = b""
                for number in range(50):
                    await ask(body, number + 1)
                assert transport.sent.count(b"HTTP/1.1 200" if body is REQUEST[0] else b"HTTP/1.1 400") == 50
                counts.append(gc.collect())
                gc.enable()

    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
    assert max(counts) < 50, counts


def test_large_requests_are_refused_when_together_they_are_too_much(model_path: Path) -> None:
    part = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000\r\n\r\n" + bytes(500_000)

    async def scenario() -> None:
        async with connecting(model_path, max_pending_bytes=2_200_000) as connect:
            clients = [connect() for _ in range(5)]
            for connection, _ in clients:
                connection.data_received(part)
                await asyncio.sleep(0.01)
            sent = [transport.sent for _, transport in clients]
            assert [b"too many large requests at one time" in answer for answer in sent] == [False] * 4 + [True]
            assert sent[-1].startswith(b"HTTP/1.1 503 ")
            for connection, _ in clients:
                connection.connection_lost(None)
            connection, transport = connect()
            connection.data_received(post(INFER, *REQUEST))
            while not transport.sent:
                await asyncio.sleep(0.001)
            assert transport.sent.startswith(b"HTTP/1.1 200 ")

    asyncio.run(asyncio.wait_for(scenario(), timeout=20))
