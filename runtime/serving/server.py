"""One serving process: from a listening socket to the last answer.

On SIGTERM it drains: for `lame_duck_s` it reports that it is not ready but still answers, and each answer closes its
connection. Then it accepts no more connections, finishes open requests within `exit_timeout_s`, and exits 0. Liveness
stays 200 throughout.
A second signal, or Ctrl-C, skips the wait; another one also skips finishing requests. Even if something hangs, the
process ends soon after `exit_timeout_s`. On SIGHUP it reloads its certificate, token and models.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from runtime.serving.app import App
from runtime.serving.connections.connection import Connection, connection_class
from runtime.serving.connections.listener import BACKLOG, begin_no_more
from runtime.serving.connections.tls import renew_certificate
from runtime.serving.metrics import Metrics
from runtime.serving.models.repository import Repository
from runtime.serving.processes.channel import Channel
from runtime.serving.processes.figures import Figures
from runtime.serving.settings import Settings, read_token

log = logging.getLogger(__name__)

_FILES = 65536
_TICK_S = 0.05
# After `exit_timeout_s`, the time for threads to end before the process is ended.
_EXIT_GRACE_S = 3.0
# For handshakes that are still open when new connections are blocked.
_HANDSHAKE_S = 0.05
# The longest time that a thread returning from a model waits for the interpreter's lock. Python's default of 5 ms is
# several batches of a small model; 0.5 ms doubles the 99th percentile of latency near capacity.
_SWITCH_S = 0.0001


def run(
    settings: Settings,
    *,
    listener: socket.socket,
    channel: Channel | None = None,
    unloaded: Sequence[str] = (),
    figures: Figures | None = None,
) -> None:
    """Serve until told to stop.

    Args: channel: to the other processes that serve this socket; None if there are none. unloaded: models not to load
        until a client requests it. figures: shared by all these processes.
    Raises: ArtifactError, OSError: there is nothing to serve.
    """
    _allow_many_files()
    sys.setswitchinterval(_SWITCH_S)
    metrics = Metrics(figures)
    repository = Repository(settings, metrics, unloaded=unloaded)
    control = channel.control_everywhere if channel else None
    app = App(repository, settings=settings, metrics=metrics, control=control)
    failures: list[Exception] = []

    async def load() -> None:
        if channel is not None:
            channel.attach(control_here=app.control_here, drain=server.drain, reload=server.reload)
        elif sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            await repository.load_all()
        except Exception as error:
            failures.append(error)
            server.should_exit = True
            return
        if channel is not None:
            channel.tell_ready()
        # These objects stay: searching them for garbage would delay every request for tens of milliseconds.
        gc.collect()
        gc.freeze()
        log.info("ready", extra={"models": ", ".join(repository.names)})

    config = uvicorn.Config(
        # While it loads, a worker leaves connections to the other workers; a single process answers probes meanwhile.
        app.build(load, loads_first=channel is not None),
        http=connection_class(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.exit_timeout_s)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config, app=app, settings=settings, is_worker=channel is not None)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]
    log.info("stopped")


class _Server(uvicorn.Server):
    """uvicorn's server with our draining."""

    def __init__(self, config: uvicorn.Config, *, app: App, settings: Settings, is_worker: bool) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._is_worker = is_worker
        self._stops_at_s: float | None = None
        self._reloading: asyncio.Task[None] | None = None

    def drain(self, after_s: float, is_forced: bool = False) -> None:
        """Stop after `after_s`, or sooner if an earlier call requires it; if forced, without finishing requests."""
        stops_at_s = time.monotonic() + after_s
        self._stops_at_s = min(stops_at_s, self._stops_at_s or stops_at_s)
        self.force_exit = self.force_exit or is_forced
        if not self._app.gate.is_draining:
            self._app.gate.is_draining = True
            log.info("draining", extra={"lame_duck_s": after_s})

    def reload(self) -> None:
        """Reload certificate, token and models while serving; an unusable one is left as it was."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        problems: list[str] = []
        is_any_taken = False
        for take in self._renewals():
            try:
                take()
                is_any_taken = True
            except (OSError, ValueError) as error:
                problems.append(str(error))
        problems += await self._app.follow_models(retry=True)
        if not problems:
            log.info("reloaded")
            return
        is_any_taken = is_any_taken or self._app.is_any_model_current
        log.error("reloaded in part" if is_any_taken else "not reloaded", extra={"error": "; ".join(problems)})

    def _renewals(self) -> Iterator[Callable[[], None]]:
        """Functions that each reload one configured file. They raise OSError or ValueError if it is unusable."""
        if self.config.ssl is not None:
            yield partial(renew_certificate, self.config.ssl, self._settings)
        if self._settings.token_file is not None:
            yield self._renew_token

    def _renew_token(self) -> None:
        self._app.gate.token = read_token(self._settings.token_file)
        # The token of a request with a repeated head is not checked again.
        for connection in self._all_connections():
            connection.forget()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_worker and sig == signal.SIGINT:
            # A terminal's Ctrl-C reaches all processes; the supervisor tells the workers when to stop.
            return
        if self.should_exit:
            self.force_exit = True
        elif self._app.gate.is_draining or sig == signal.SIGINT:
            self.drain(0)
        else:
            self.drain(self._settings.lame_duck_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_anyway(after_s=self._settings.exit_timeout_s + _EXIT_GRACE_S)
        await self._accept_the_last(sockets or [])
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        state = self.server_state
        try:
            while (state.connections or state.tasks) and not self.force_exit:
                await asyncio.sleep(_TICK_S)
        finally:
            # uvicorn cancels its tasks now; a repeated request has no task.
            for connection in self._all_connections():
                connection.give_up()
            if self.force_exit:
                for task in state.tasks:
                    task.cancel()

    def _all_connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]

    async def _accept_the_last(self, listeners: Sequence[socket.socket]) -> None:
        """Accept the waiting connections; closing the listening socket would reset them."""
        # All workers drain and stop together. A worker that failed stops alone, and the others still need the socket.
        if self._app.gate.is_draining and self._settings.packet_filter:
            for listener in listeners:
                begin_no_more(listener)
            await asyncio.sleep(_HANDSHAKE_S)
        copies = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        accepted = []
        for copy in copies:
            copy.setblocking(False)
            with copy, contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(copy.accept()[0])
        loop = asyncio.get_running_loop()
        http: Any = self.config.http_protocol_class
        make = partial(http, self.config, self.server_state, self.lifespan.state)
        for connection in accepted:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(make, connection, ssl=self.config.ssl)

    async def on_tick(self, counter: int) -> bool:
        if self._stops_at_s is not None and time.monotonic() >= self._stops_at_s:
            self.should_exit = True
        if counter % 10 == 0:
            for connection in self._all_connections():
                connection.look(time.monotonic())
        return await super().on_tick(counter)


def end_anyway(*, after_s: float) -> None:
    """End the process after `after_s`, whatever its threads do: Python itself waits for each of them."""

    def end() -> None:
        time.sleep(after_s)
        log.error("ended with work unfinished", extra={"threads": threading.active_count()})
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def _allow_many_files() -> None:
    """Raise the limit of open files, since every connection needs one."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
