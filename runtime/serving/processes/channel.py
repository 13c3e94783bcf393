"""A worker's end of the pipe to its supervisor, by which models are loaded and unloaded in every process.

worker -> supervisor   Ready | Failed   Change: requested by a client of this worker   Changed: done in this worker
supervisor -> worker   Change: to all workers   Changed: done in all workers   Reload   Drain
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from runtime.serving.errors import FailedError, ServeError


@dataclass(frozen=True)
class Ready:
    """Everything is loaded."""


@dataclass(frozen=True)
class Failed:
    """There is nothing to serve."""

    message: str


@dataclass(frozen=True)
class Change:
    """A request to load or unload a model."""

    number: int
    """Identifies the change in its answer, `Changed`."""
    action: str
    name: str


@dataclass(frozen=True)
class Changed:
    number: int
    error: ServeError | None


@dataclass(frozen=True)
class Reload:
    """Reload certificate, token and models."""


@dataclass(frozen=True)
class Drain:
    """Stop after `after_s`; if forced, without finishing requests."""

    after_s: float
    is_forced: bool = False


class Channel:
    """Carries messages between a worker's event loop and its supervisor."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[ServeError | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(
        self,
        *,
        control_here: Callable[[str, str], Awaitable[None]],
        drain: Callable[[float, bool], None],
        reload: Callable[[], None],
    ) -> None:
        """Listen to the supervisor, in the running event loop."""
        self._control_here = control_here
        self._drain = drain
        self._reload = reload
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._hear)

    def tell_ready(self) -> None:
        self._pipe.send(Ready())

    def tell_failed(self, error: Exception) -> None:
        self._pipe.send(Failed(str(error)))

    async def control_everywhere(self, action: str, name: str) -> None:
        """Load or unload a model in every process. Raises: ServeError: a process could not."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._pipe.send(Change(number, action, name))
        try:
            error = await self._asked[number]
        finally:
            del self._asked[number]
        if error is not None:
            raise error

    def _hear(self) -> None:
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            # The supervisor has ended: nothing would restart or stop this worker.
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._drain(0, False)
            return
        match message:
            case Change():
                task = asyncio.get_running_loop().create_task(self._do(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Changed(number, error):
                future = self._asked.get(number)
                if future is not None and not future.done():
                    future.set_result(error)
            case Reload():
                self._reload()
            case Drain(after_s, is_forced):
                self._drain(after_s, is_forced)

    async def _do(self, message: Change) -> None:
        error: ServeError | None = None
        try:
            await self._control_here(message.action, message.name)
        except ServeError as told:
            error = told
        except Exception as failure:
            error = FailedError(str(failure))
        self._pipe.send(Changed(message.number, error))
