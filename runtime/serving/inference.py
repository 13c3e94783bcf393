"""`POST /v2/models/NAME/infer` and `POST /v1/classify`: what clients come for, and what is counted.

Both are ASGI applications of their own: requests pass no layer that they do not need. A body is answered by `_begin`,
whether it came by ASGI's way or repeats the head of one that did.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import orjson

from runtime.model import Model
from runtime.serving.answers import Answer, encode_infer, top_classes
from runtime.serving.batching import Done
from runtime.serving.bodies import Budget, accepted_encoding, deflate, read_body
from runtime.serving.errors import FailedError, RequestError, ServeError
from runtime.serving.exchange import (
    Begin,
    Exchange,
    Receive,
    Reply,
    Response,
    Scope,
    Send,
    Withdraw,
    answer_to,
    respond,
    response,
)
from runtime.serving.pictures import Decoder
from runtime.serving.protocol import InferReader, InferRequest
from runtime.serving.repository import Repository
from runtime.serving.served import Feed, ServedModel
from runtime.serving.settings import Settings

log = logging.getLogger(__name__)

_HEADER_LENGTH = "inference-header-content-length"
# A larger request is read in a thread, so that others are answered meanwhile; a smaller answer is not compressed.
_LARGE_BYTES = 128 * 1024
_SMALL_BYTES = 1024
_DEFAULT_TOP = 5


class _Room:
    """Takes requests' bodies within the limits."""

    def __init__(self, repository: Repository, *, settings: Settings, budget: Budget) -> None:
        self._repository = repository
        self._limit = settings.max_request_bytes
        self._budget = budget

    async def _answer(self, served: ServedModel, begin: Begin, exchange: Exchange, receive: Receive) -> Response:
        exchange.cancel_when_gone()
        with served.users:
            with self._budget.share() as take:
                body = await read_body(receive, exchange.headers, limit=self._limit, take=take)
            # Nothing comes between: what the body took is there for `begin`, which takes it anew.
            return await answer_to(body, begin)


class _Work:
    """A request being answered: what it holds and is counted for, until it is answered, fails or is withdrawn."""

    __slots__ = ("_budget", "_metrics", "_num_bytes", "_reply", "_served", "_start_s", "is_over", "leave")

    def __init__(self, served: ServedModel, budget: Budget, body: bytes, reply: Reply) -> None:
        """Raises: UnavailableError: the budget is spent."""
        budget.take(len(body))
        self._budget, self._num_bytes = budget, len(body)
        self._reply = reply
        self._served = served
        self._metrics = served.metrics
        self._start_s = time.perf_counter()
        self.leave: Withdraw | None = None
        """Leaves where it waits now."""
        self.is_over = False
        self._metrics.came()

    def answer(self, answer: Response, *, rows: int, queued_s: float) -> None:
        self._metrics.answered(rows=rows, seconds=self._end(), queued_s=queued_s)
        self._reply(answer)

    def fail(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, ServeError) else "BACKEND"
        self._metrics.failed(reason, seconds=self._end())
        if not isinstance(error, ServeError):
            log.error("the model failed", exc_info=error)
            error = FailedError("the model failed on this request")
        # A traceback leads to the request's body, and would keep it until the garbage collector comes by.
        self._reply(error.with_traceback(None))

    def withdraw(self) -> None:
        if not self.is_over:
            leave = self.leave
            self._metrics.failed("CANCELED", seconds=self._end())
            if leave is not None:
                leave()

    def attempt(self, outcome: Any, go_on: Callable[[Any], None]) -> None:
        """Go on with what a part of the work gave; a failure, of that part or of what follows, is the request's."""
        if self.is_over:
            return
        if isinstance(outcome, Exception):
            self.fail(outcome)
            return
        try:
            go_on(outcome)
        except Exception as error:
            self.fail(error)

    def _end(self) -> float:
        """Seconds that it took."""
        self.is_over = True
        # It leads back here: a circle, which only the garbage collector would take apart.
        self.leave = None
        self._budget.give_back(self._num_bytes)
        return time.perf_counter() - self._start_s


@dataclass(frozen=True)
class _Asked:
    """What an inference request's head says."""

    model: str
    version: str | None
    reader: InferReader
    encoding: str | None
    """That the answer may have."""


class Infer(_Room):
    """The protocol's inference."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        asked = _Asked(
            model=scope["path_params"]["model"],
            version=scope["path_params"].get("version"),
            reader=InferReader(exchange.headers.get(_HEADER_LENGTH)),
            encoding=accepted_encoding(exchange.headers.get("accept-encoding", "")),
        )
        served = self._repository.get(asked.model, asked.version)
        answer = await self._answer(served, partial(self._begin, served, asked), exchange, receive)
        if exchange.remember is not None and "content-encoding" not in exchange.headers:
            exchange.remember(partial(self._again, asked))
        await respond(send, answer)

    def _again(self, asked: _Asked, body: bytes, reply: Reply) -> Withdraw | None:
        return self._begin(self._repository.get(asked.model, asked.version), asked, body, reply)

    def _begin(self, served: ServedModel, asked: _Asked, body: bytes, reply: Reply) -> Withdraw | None:
        work = _Inference(served, self._budget, body, reply)
        work.asked = asked
        if len(body) > _LARGE_BYTES:
            tell = partial(work.attempt, go_on=work.queue)
            _in_thread(partial(asked.reader.read, body, served.signature), tell)
        else:
            try:
                work.queue(asked.reader.read(body, served.signature))
            except Exception as error:
                work.fail(error)
        return None if work.is_over else work.withdraw


class _Inference(_Work):
    """A request to `Infer`. No closures: it is made for every one."""

    __slots__ = ("_request", "asked")

    asked: _Asked

    def queue(self, request: InferRequest) -> None:
        self._request = request
        self.leave = self._served.begin(
            request.feed, self._tell, batch_size=request.batch_size, timeout_s=request.timeout_s
        )

    def _tell(self, done: Done[Feed] | Exception) -> None:
        if isinstance(done, Exception):
            self.fail(done)
            return
        request, served = self._request, self._served
        try:
            answer = encode_infer(request, done.result, model=served.name, version=served.version, labels=served.labels)
            whole = _response(answer, encoding=self.asked.encoding)
        except Exception as error:
            self.fail(error)
        else:
            self.answer(whole, rows=request.batch_size, queued_s=done.queued_s)


def _in_thread(call: Callable[[], Any], tell: Callable[[Any], None]) -> None:
    """Call in a thread, and tell in the event loop what that gives or raises."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        try:
            outcome = call()
        except Exception as error:
            outcome = error
        loop.call_soon_threadsafe(tell, outcome)

    loop.run_in_executor(None, run)


def _response(answer: Answer, *, encoding: str | None) -> Response:
    body, headers = answer.body, []
    if answer.num_json_bytes is not None:
        headers.append((_HEADER_LENGTH.encode(), str(answer.num_json_bytes).encode()))
    if encoding is not None and len(body) >= _SMALL_BYTES:
        body = deflate(body, encoding=encoding)
        headers.append((b"content-encoding", encoding.encode()))
    content_type = b"application/json" if answer.num_json_bytes is None else b"application/octet-stream"
    return response(body, content_type=content_type, headers=headers)


class Classify(_Room):
    """A picture's bytes in, its likeliest classes out."""

    def __init__(self, repository: Repository, *, settings: Settings, budget: Budget) -> None:
        super().__init__(repository, settings=settings, budget=budget)
        self._decoder = Decoder(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start_s = time.perf_counter()
        exchange = Exchange.of(scope)
        query = _query(scope)
        served, model = self._find(query.get("model"), query.get("version"))
        top = _top(query.get("top"), num_classes=len(model.classes))
        if exchange.headers.get("content-type", "").lower().startswith("multipart/"):
            raise RequestError("send the picture as it is, not as a form: curl -T photo.jpg")
        begin = partial(self._begin, served, model, top, start_s)
        await respond(send, await self._answer(served, begin, exchange, receive))

    def _begin(
        self, served: ServedModel, model: Model, top: int, start_s: float, body: bytes, reply: Reply
    ) -> Withdraw | None:
        work = _Work(served, self._budget, body, reply)

        def decode(body: bytes) -> None:
            tell = partial(work.attempt, go_on=infer)
            work.leave = self._decoder.begin(body, model.preprocess, tell)

        def infer(decoded: Done[np.ndarray]) -> None:
            tell = partial(work.attempt, go_on=partial(answer, decoded))
            feed = {"images": decoded.result[None]}
            work.leave = served.begin(feed, tell, batch_size=1, timeout_s=None)

        def answer(decoded: Done[np.ndarray], done: Done[Feed]) -> None:
            probabilities = done.result["probabilities"][0]  # [K]
            classes = [
                {"class": model.classes[k], "probability": float(probabilities[k])}
                for k in top_classes(probabilities, top=top)
            ]
            ms = {
                "decode": _ms(decoded.queued_s + decoded.ran_s),
                "queue": _ms(done.queued_s),
                "infer": _ms(done.ran_s),
                "total": _ms(time.perf_counter() - start_s),
            }
            document = {"model": served.name, "version": served.version, "classes": classes, "ms": ms}
            work.answer(response(orjson.dumps(document)), rows=1, queued_s=done.queued_s)

        work.attempt(body, decode)
        return None if work.is_over else work.withdraw

    def _find(self, name: str | None, version: str | None) -> tuple[ServedModel, Model]:
        """The model that is asked for, or the only image classifier there is."""
        if name is not None:
            served = self._repository.get(name, version)
            if not isinstance(served.model, Model):
                raise RequestError(f"model '{name}' is {served.model.kind}, not an image classifier")
            return served, served.model
        classifiers = {s.name for s in self._repository.served() if isinstance(s.model, Model)}
        if len(classifiers) != 1:
            told = f"?model=NAME with one of {', '.join(sorted(classifiers))}" if classifiers else "there is none now"
            raise RequestError(f"which image classifier? {told}")
        return self._find(classifiers.pop(), version)


def _query(scope: Scope) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


def _top(value: str | None, *, num_classes: int) -> int:
    if value is None:
        return min(_DEFAULT_TOP, num_classes)
    if not (value.isascii() and value.isdigit() and 0 < len(value) <= 6) or int(value) < 1:
        raise RequestError("top must be a whole number above 0")
    return min(int(value), num_classes)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
