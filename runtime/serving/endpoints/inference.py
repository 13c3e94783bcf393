"""`POST /v2/models/NAME/infer`: the protocol's inference.

A separate ASGI application, without layers that it does not need. A body is answered by `_begin`, whether it came
through ASGI or by the fast path for repeated heads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.models.protocol_names import HEADER_LENGTH
from runtime.serving.batching.batches import Done
from runtime.serving.connections.bodies import accepted_encoding
from runtime.serving.connections.exchange import LARGE_BYTES, Exchange, Receive, Reply, Scope, Send, Withdraw, respond
from runtime.serving.endpoints.work import Intake, Work
from runtime.serving.models.repository import Repository
from runtime.serving.models.served import Feed, ServedModel
from runtime.serving.protocol.answers import InferWriter
from runtime.serving.protocol.requests import InferReader, InferRequest


@dataclass(frozen=True)
class _Asked:
    """The contents of an inference request's head."""

    model: str
    version: str | None
    reader: InferReader
    writer: InferWriter


class Infer:
    """Answers inference requests."""

    def __init__(self, repository: Repository, *, intake: Intake) -> None:
        self._repository = repository
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        headers, path = exchange.headers, scope["path_params"]
        reader = InferReader(headers.get(HEADER_LENGTH.lower()))
        writer = InferWriter(accepted_encoding(headers.get("accept-encoding", "")))
        asked = _Asked(path["model"], path.get("version"), reader, writer)
        served = self._repository.get(asked.model, asked.version)
        answer = await self._intake.answer(served, partial(self._begin, served, asked), exchange, receive)
        if exchange.remember is not None and "content-encoding" not in headers:
            exchange.remember(partial(self._again, asked))
        await respond(send, answer)

    def _again(self, asked: _Asked, body: bytes, reply: Reply) -> Withdraw | None:
        return self._begin(self._repository.get(asked.model, asked.version), asked, body, reply)

    def _begin(self, served: ServedModel, asked: _Asked, body: bytes, reply: Reply) -> Withdraw | None:
        work = _Inference(served, self._intake.budget, body, reply)
        work.asked = asked
        if len(body) > LARGE_BYTES:
            tell = partial(work.attempt, go_on=work.queue)
            _in_thread(partial(asked.reader.read, body, served.signature), tell)
        else:
            try:
                work.queue(asked.reader.read(body, served.signature))
            except Exception as error:
                work.fail(error)
        return None if work.is_over else work.withdraw


class _Inference(Work):
    """A request to `Infer`. Creates no closures, for speed."""

    __slots__ = ("_request", "asked")

    asked: _Asked

    def queue(self, request: InferRequest) -> None:
        self._request = request
        self.stop_waiting = self._served.begin(
            request.feed, self._tell, batch_size=request.batch_size, timeout_s=request.timeout_s
        )

    def _tell(self, done: Done[Feed] | Exception) -> None:
        if isinstance(done, Exception):
            self.fail(done)
            return
        request, served = self._request, self._served
        try:
            answer = self.asked.writer.write(
                request, done.result, model=served.name, version=served.version, labels=served.labels
            )
        except Exception as error:
            self.fail(error)
        else:
            self.answer(answer, rows=request.batch_size, queued_s=done.queued_s)


def _in_thread(call: Callable[[], Any], tell: Callable[[Any], None]) -> None:
    """Run `call` in a thread, and pass its result or exception to `tell` in the event loop."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    future.add_done_callback(lambda done: tell(done.exception() or done.result()))
