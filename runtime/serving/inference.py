"""`POST /v2/models/NAME/infer` and `POST /v1/classify`: what clients come for, and what is counted.

Both are ASGI applications of their own: requests pass no layer that they do not need.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs

import numpy as np
import orjson

from runtime.images import ImageError, Preprocess, prepare_bytes
from runtime.machine import usable_cores
from runtime.model import Model
from runtime.serving.answers import Answer, encode_infer, top_classes
from runtime.serving.batching import Batcher, BatchLimits, Done
from runtime.serving.bodies import Budget, Receive, accepted_encoding, deflate, read_body
from runtime.serving.errors import FailedError, RequestError, ServeError
from runtime.serving.extensions import REPEATS, Response
from runtime.serving.gate import Scope, Send, cancel_when_gone, respond, response
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

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class _Asked:
    """What a request's head says."""

    model: str
    version: str | None
    reader: InferReader
    encoding: str | None
    """That the answer may have."""


class Infer:
    """The protocol's inference."""

    def __init__(self, repository: Repository, *, settings: Settings, budget: Budget) -> None:
        self._repository = repository
        self._limit = settings.max_request_bytes
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Mapping[str, str] = scope["enas.headers"]
        asked = _Asked(
            model=scope["path_params"]["model"],
            version=scope["path_params"].get("version"),
            reader=InferReader(headers.get(_HEADER_LENGTH)),
            encoding=accepted_encoding(headers.get("accept-encoding", "")),
        )
        served = self._repository.get(asked.model, asked.version)
        cancel_when_gone(scope)
        with served.users, self._budget.share() as take:
            body = await read_body(receive, headers, limit=self._limit, take=take)
            answer = await _Counted(served).run(self._answer(served, body, asked.reader))
        repeats = scope.get("extensions", {}).pop(REPEATS, None)
        # A large request is read in a thread, for which there is none on the short way.
        if repeats is not None and "content-encoding" not in headers and len(body) <= _LARGE_BYTES:
            repeats(partial(self._again, asked))
        await respond(send, _response(answer, encoding=asked.encoding))

    def _again(
        self, asked: _Asked, body: bytes, reply: Callable[[Response | Exception], None]
    ) -> Callable[[], None] | None:
        """Begin to answer a request that repeats the head of another. Raises: ServeError."""
        served = self._repository.get(asked.model, asked.version)
        self._budget.take(len(body))
        counted = _Counted(served)

        def tell(outcome: Done[Feed] | Exception) -> None:
            self._budget.give_back(len(body))
            if isinstance(outcome, Exception):
                reply(counted.failed(outcome))
                return
            try:
                answer = _response(_encode(request, outcome, served), encoding=asked.encoding)
            except Exception as error:
                reply(counted.failed(error))
                return
            counted.answered(rows=request.batch_size, queued_s=outcome.queued_s)
            reply(answer)

        try:
            request = asked.reader.read(body, served.signature)
            leave = served.begin(request.feed, tell, batch_size=request.batch_size, timeout_s=request.timeout_s)
        except Exception as error:
            tell(error)
            return None

        def withdraw() -> None:
            leave()
            self._budget.give_back(len(body))
            counted.cancelled()

        return withdraw

    async def _answer(self, served: ServedModel, body: bytes, reader: InferReader) -> tuple[Answer, int, Done[Feed]]:
        if len(body) <= _LARGE_BYTES:
            request = reader.read(body, served.signature)
        else:
            request = await asyncio.to_thread(reader.read, body, served.signature)
        done = await served.infer(request.feed, batch_size=request.batch_size, timeout_s=request.timeout_s)
        return _encode(request, done, served), request.batch_size, done


def _encode(request: InferRequest, done: Done[Feed], served: ServedModel) -> Answer:
    return encode_infer(request, done.result, model=served.name, version=served.version, labels=served.labels)


def _response(answer: Answer, *, encoding: str | None) -> Response:
    body, headers = answer.body, []
    if answer.num_json_bytes is not None:
        headers.append((_HEADER_LENGTH.encode(), str(answer.num_json_bytes).encode()))
    if encoding is not None and len(body) >= _SMALL_BYTES:
        body = deflate(body, encoding=encoding)
        headers.append((b"content-encoding", encoding.encode()))
    content_type = b"application/json" if answer.num_json_bytes is None else b"application/octet-stream"
    return response(body, content_type=content_type, headers=headers)


class Classify:
    """A picture's bytes in, its likeliest classes out."""

    def __init__(self, repository: Repository, *, settings: Settings, budget: Budget) -> None:
        self._repository = repository
        self._limit = settings.max_request_bytes
        self._budget = budget
        limits = BatchLimits(
            max_batch_size=1,
            max_queue_size=settings.limits.max_queue_size,
            runners=max(1, usable_cores() // settings.workers),
        )
        self._decoder: Batcher[tuple[bytes, Preprocess], np.ndarray] = Batcher(_decode, limits=limits, name="decode")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Mapping[str, str] = scope["enas.headers"]
        query = _query(scope)
        served, model = self._find(query.get("model"), query.get("version"))
        top = _top(query.get("top"), num_classes=len(model.classes))
        if headers.get("content-type", "").lower().startswith("multipart/"):
            raise RequestError("send the picture as it is, not as a form: curl -T photo.jpg")
        cancel_when_gone(scope)
        start = time.perf_counter()
        with served.users, self._budget.share() as take:
            body = await read_body(receive, headers, limit=self._limit, take=take)
            document = await _Counted(served).run(self._answer(served, model, body, top=top))
        document["ms"]["total"] = _ms(time.perf_counter() - start)
        await respond(send, response(orjson.dumps(document)))

    async def _answer(
        self, served: ServedModel, model: Model, body: bytes, *, top: int
    ) -> tuple[dict[str, Any], int, Done[Feed]]:
        decoded = await self._decoder.submit((body, model.preprocess))
        done = await served.infer({"images": decoded.result[None]}, batch_size=1, timeout_s=None)
        probabilities = done.result["probabilities"][0]  # [K]
        document = {
            "model": served.name,
            "version": served.version,
            "classes": [
                {"class": model.classes[k], "probability": float(probabilities[k])}
                for k in top_classes(probabilities, top=top)
            ],
            "ms": {
                "decode": _ms(decoded.queued_s + decoded.ran_s),
                "queue": _ms(done.queued_s),
                "infer": _ms(done.ran_s),
            },
        }
        return document, 1, done

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


class _Counted:
    """Tells a model's metrics of a request's fate."""

    def __init__(self, served: ServedModel) -> None:
        self._metrics = served.metrics
        self._start = time.perf_counter()
        self._metrics.came()

    async def run(self, answering: Awaitable[tuple[_Value, int, Done[Feed]]]) -> _Value:
        """Args: answering: gives the answer, its rows, and what the batcher said.

        Raises: ServeError: what went wrong, FailedError if it was our fault.
        """
        try:
            value, rows, done = await answering
        except asyncio.CancelledError:
            self.cancelled()
            raise
        except ServeError as error:
            self.failed(error)
            raise
        except Exception as error:
            raise self.failed(error) from error
        self.answered(rows=rows, queued_s=done.queued_s)
        return value

    def answered(self, *, rows: int, queued_s: float) -> None:
        self._metrics.answered(rows=rows, seconds=self._seconds(), queued_s=queued_s)

    def cancelled(self) -> None:
        self._metrics.failed("CANCELED", seconds=self._seconds())

    def failed(self, error: Exception) -> ServeError:
        """What the client is told."""
        if isinstance(error, ServeError):
            self._metrics.failed(error.reason, seconds=self._seconds())
            return error
        self._metrics.failed("BACKEND", seconds=self._seconds())
        log.error("the model failed", exc_info=error)
        return FailedError("the model failed on this request")

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _decode(pictures: Sequence[tuple[bytes, Preprocess]], size: int) -> list[np.ndarray]:
    """PNG or JPEG bytes -> [H, W, C]. Raises: RequestError: not such a picture."""
    try:
        return [prepare_bytes(data, preprocess=preprocess) for data, preprocess in pictures]
    except ImageError as error:
        raise RequestError(str(error)) from None


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
