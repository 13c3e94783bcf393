"""Answers a request's body: within the limits, counted, and with exactly one outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.serving.connections.bodies import Budget, read_body
from runtime.serving.connections.exchange import Begin, Exchange, Receive, Reply, Response, Withdraw, answer_to
from runtime.serving.errors import FailedError, ServeError
from runtime.serving.models.served import ServedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """Reads and answers requests' bodies within the limits."""

    max_request_bytes: int
    budget: Budget

    async def answer(self, served: ServedModel, begin: Begin, exchange: Exchange, receive: Receive) -> Response:
        """The answer of `begin` to the body. Raises: as `read_body`, and the exception that `begin` replies."""
        task = asyncio.current_task()
        assert task is not None
        exchange.on_gone = task.cancel
        with served.users:
            body = await read_body(receive, exchange.headers, limit=self.max_request_bytes, budget=self.budget)
            # No await in between: the bytes that `read_body` gave back to the budget are still free for `begin`.
            return await answer_to(body, begin)


class Work:
    """A request being answered: its share of the budget and its counts, until it is answered, fails or is withdrawn."""

    __slots__ = ("_budget", "_num_bytes", "_reply", "_served", "_start_s", "is_over", "stop_waiting")

    def __init__(self, served: ServedModel, budget: Budget, body: bytes, reply: Reply) -> None:
        """Raises: UnavailableError: the budget is spent."""
        budget.take(len(body))
        self._budget, self._num_bytes = budget, len(body)
        self._reply = reply
        self._served = served
        self._start_s = time.perf_counter()
        self.stop_waiting: Withdraw | None = None
        """Withdraws it from the queue in which it waits."""
        self.is_over = False
        served.metrics.came()

    def answer(self, answer: Response, *, rows: int, queued_s: float) -> None:
        self._served.metrics.answered(rows=rows, seconds=self._end(), queued_s=queued_s)
        self._reply(answer)

    def fail(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, ServeError) else "BACKEND"
        self._served.metrics.failed(reason, seconds=self._end())
        if not isinstance(error, ServeError):
            log.error("the model failed", exc_info=error)
            error = FailedError("the model failed on this request")
        # A traceback refers to the request's body, and would keep it until the garbage collector runs.
        self._reply(error.with_traceback(None))

    def withdraw(self) -> None:
        if not self.is_over:
            stop_waiting = self.stop_waiting
            self._served.metrics.failed("CANCELED", seconds=self._end())
            if stop_waiting is not None:
                stop_waiting()

    def attempt(self, outcome: Any, go_on: Callable[[Any], None]) -> None:
        """Continue with the outcome of a part of the work; if that part or `go_on` fails, the request fails."""
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
        """Give back its share of the budget; returns its duration in seconds."""
        self.is_over = True
        # It refers back to this object: a cycle, which only the garbage collector frees.
        self.stop_waiting = None
        self._budget.give_back(self._num_bytes)
        return time.perf_counter() - self._start_s
