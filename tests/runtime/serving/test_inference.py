"""Requests through connection, gate and model, without a network or a process between."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from runtime.serving.app import App
from runtime.serving.connection import connection_class
from runtime.serving.gate import Phase
from runtime.serving.limits import Limits
from runtime.serving.metrics import Metrics
from runtime.serving.repository import Repository
from runtime.serving.settings import Settings
from tests.runtime.serving.attacks import post
from tests.runtime.serving.clients import REQUEST
from tests.runtime.serving.conftest import INFER, binary_request, pixels
from tests.runtime.serving.echo import Transport


def test_answered_and_failed_requests_leave_nothing_for_the_garbage_collector(model_path: Path) -> None:
    """What is left to it keeps bodies alive, and costs a busy server a tenth of its time."""
    wrong = binary_request(pixels(0))[0].replace(b"UINT8", b"UINT9")
    counts = []

    async def scenario() -> None:
        settings, metrics = Settings(model_path, provider="cpu"), Metrics()
        repository = Repository(settings, metrics)
        app = App(repository, settings=settings, metrics=metrics, phase=Phase())
        connections = connection_class(Limits(receive_timeout_s=30, send_timeout_s=30, max_connections=9))
        config = uvicorn.Config(
            app.build(asyncio.Event().wait, loads_first=True),  # type: ignore[arg-type]
            http=connections,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
        )
        await repository.load_all()
        connection, transport = connections(config, ServerState(), {}), Transport()
        connection.connection_made(transport)

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
        await repository.close()

    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
    assert max(counts) < 50, counts
