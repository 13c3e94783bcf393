"""`POST /v1/classify`: a picture's bytes in, its most likely classes out."""

# K classes

from __future__ import annotations

import time
from functools import partial
from urllib.parse import parse_qs

import numpy as np
import orjson

from foundation.pictures import Picture
from runtime.models.classes import top_classes
from runtime.models.model import Model
from runtime.serving.batching.batches import Done
from runtime.serving.connections.exchange import Exchange, Receive, Reply, Scope, Send, Withdraw, respond, response
from runtime.serving.endpoints.pictures import Decoder
from runtime.serving.endpoints.work import Intake, Work
from runtime.serving.errors import FailedError, RequestError, UnavailableError
from runtime.serving.models.repository import Repository
from runtime.serving.models.served import Feed, ServedModel

_DEFAULT_TOP = 5


class Classify:
    """An ASGI application that answers pictures with classes."""

    def __init__(self, repository: Repository, *, intake: Intake, decoder: Decoder) -> None:
        self._repository = repository
        self._intake = intake
        self._decoder = decoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start_s = time.perf_counter()
        exchange = Exchange.of(scope)
        query = _query(scope)
        served, model = self._find(query.get("model"), query.get("version"))
        top = _top(query.get("top"), num_classes=len(model.classes))
        if exchange.headers.get("content-type", "").lower().startswith("multipart/"):
            raise RequestError("send the picture as it is, not as a form: curl -T photo.jpg")
        begin = partial(self._begin, served, model, top, start_s)
        await respond(send, await self._intake.answer(served, begin, exchange, receive))

    def _begin(
        self, served: ServedModel, model: Model, top: int, start_s: float, body: bytes, reply: Reply
    ) -> Withdraw | None:
        work = Work(served, self._intake.budget, body, reply)

        def decode(body: bytes) -> None:
            tell = partial(work.attempt, go_on=infer)
            work.stop_waiting = self._decoder.begin(body, model.preprocess, tell)

        def infer(decoded: Done[Picture]) -> None:
            tell = partial(work.attempt, go_on=partial(answer, decoded))
            feed = {"images": decoded.result.pixels[None]}
            work.stop_waiting = served.begin(feed, tell, batch_size=1, timeout_s=None)

        def answer(decoded: Done[Picture], done: Done[Feed]) -> None:
            probabilities = done.result["probabilities"][0]  # [K]
            if not np.isfinite(probabilities).all():
                raise FailedError("the model's answer contains numbers that are not finite")
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
            if decoded.result.remark is not None:
                document["remark"] = decoded.result.remark
            work.answer(response(orjson.dumps(document)), rows=1, queued_s=done.queued_s)

        work.attempt(body, decode)
        return None if work.is_over else work.withdraw

    def _find(self, name: str | None, version: str | None) -> tuple[ServedModel, Model]:
        """The requested model, or by default the only image classifier."""
        if name is not None:
            served = self._repository.get(name, version)
            if not isinstance(served.model, Model):
                raise RequestError(f"model '{name}' is {served.model.kind}, not an image classifier")
            return served, served.model
        present = self._repository.served()
        classifiers = {s.name for s in present if isinstance(s.model, Model)}
        if not classifiers and not (present and self._repository.is_ready):
            raise UnavailableError("no image classifier is ready")
        if len(classifiers) != 1:
            told = f"?model=NAME with one of {', '.join(sorted(classifiers))}" if classifiers else "there is none"
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
