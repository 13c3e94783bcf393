"""Several processes that serve one socket: started together, replaced when they die, stopped together.

All workers accept from the same listening socket, which the supervisor keeps open: when a worker dies, its open
requests are lost, but no connection that waits to be accepted.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from runtime.models.artifact import ArtifactError
from runtime.serving.errors import ServeError
from runtime.serving.logs import configure
from runtime.serving.processes.channel import Change, Changed, Channel, Drain, Failed, Ready, Reload
from runtime.serving.processes.figures import Figures, Slot
from runtime.serving.settings import Settings, read_token

log = logging.getLogger(__name__)

_TICK_S = 0.1
_MAX_PAUSE_S = 30.0
_GRACE_S = 5.0


def supervise(settings: Settings, *, listener: socket.socket) -> None:
    """Serve with `settings.workers` processes until told to stop. Raises: ArtifactError: there is nothing to serve."""
    _Supervisor(settings, listener, _slots(settings.workers)).run()


def _slots(count: int) -> list[Slot] | None:
    """Slots for the metrics of all workers; None if there is not enough memory."""
    try:
        return [Slot.reserve() for _ in range(count)]
    except OSError as error:
        log.warning("every worker tells its own figures only", extra={"error": str(error)})
        return None


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: int
    """Of its slot; the replacement of a worker that died gets the same number."""
    is_ready: bool = False


@dataclass
class _UnderWay:
    """A change that is being applied in all workers."""

    asker: _Worker
    change: Change
    """With the number that the asker chose."""
    waits_for: set[_Worker]
    error: ServeError | None = None


@dataclass
class _Supervisor:
    settings: Settings
    listener: socket.socket
    slots: list[Slot] | None
    workers: list[_Worker] = field(default_factory=list)
    changes: dict[int, _UnderWay] = field(default_factory=dict)
    unloaded: set[str] = field(default_factory=set)
    failure: str | None = None
    stop_after_s: float | None = None
    """Set by a signal: drain for this long, then stop."""
    is_forced: bool = False
    """Set by a further signal: stop without finishing requests."""
    is_reload_due: bool = False
    pause_s: float = 0.0
    """Wait before the next replacement of a dead worker is started."""
    starts_at_s: float = 0.0

    def run(self) -> None:
        signals = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if sys.platform != "win32" else [])]
        handlers = {sig: signal.signal(sig, self._on_signal) for sig in signals}
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            while self.stop_after_s is None and self.failure is None:
                if len(self.workers) < self.settings.workers and time.monotonic() >= self.starts_at_s:
                    self._start()
                if self.is_reload_due:
                    self._reload()
                self._hear()
            self._stop(self.stop_after_s or 0.0)
        finally:
            for sig, handler in handlers.items():
                signal.signal(sig, handler)
        if self.failure is not None:
            raise ArtifactError(self.failure)

    def _on_signal(self, sig: int, frame: Any) -> None:
        if sig not in (signal.SIGTERM, signal.SIGINT):
            self.is_reload_due = True
            return
        self.is_forced = self.stop_after_s == 0.0
        is_first = self.stop_after_s is None
        self.stop_after_s = self.settings.lame_duck_s if is_first and sig == signal.SIGTERM else 0.0

    def _reload(self) -> None:
        self.is_reload_due = False
        try:
            # For workers that are started later.
            self.settings = replace(self.settings, token=read_token(self.settings.token_file))
        except (OSError, ValueError) as error:
            log.error("not reloaded", extra={"error": str(error)})
        for worker in self.workers:
            self._send(worker, Reload())

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        number = min(set(range(self.settings.workers)) - {worker.number for worker in self.workers})
        process = context.Process(
            target=_work,
            args=(self.settings, self.listener, theirs, sorted(self.unloaded), self.slots, number),
            daemon=True,
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, number))

    def _hear(self) -> None:
        """Handle messages and deaths of workers; waits at most `_TICK_S`."""
        wait([end for worker in self.workers for end in (worker.pipe, worker.process.sentinel)], timeout=_TICK_S)
        for worker in list(self.workers):
            is_alive = worker.process.is_alive()
            try:
                # A dead worker's last messages may still be in its pipe.
                while worker.pipe.poll():
                    self._on_message(worker, worker.pipe.recv())
            except (EOFError, OSError):
                pass
            if not is_alive:
                self._on_death(worker)

    def _on_message(self, worker: _Worker, message: Any) -> None:
        match message:
            case Ready():
                worker.is_ready = True
                self.pause_s = 0.0
            case Failed(text):
                # If another worker is ready, only this one has failed, and the others continue.
                if not any(other.is_ready for other in self.workers):
                    self.failure = text
            case Change():
                number = max(self.changes, default=0) + 1
                self.changes[number] = _UnderWay(worker, message, set(self.workers))
                for other in self.workers:
                    self._send(other, replace(message, number=number))
            case Changed(number, error):
                self._changed(number, worker, error)

    def _changed(self, number: int, worker: _Worker, error: ServeError | None = None) -> None:
        under_way = self.changes[number]
        under_way.error = under_way.error or error
        under_way.waits_for.discard(worker)
        if under_way.waits_for:
            return
        del self.changes[number]
        change = under_way.change
        # An unload that failed, since there is no such model, must not be repeated in workers started later.
        if change.action == "load":
            self.unloaded.discard(change.name)
        elif under_way.error is None:
            self.unloaded.add(change.name)
        self._send(under_way.asker, Changed(change.number, under_way.error))

    def _on_death(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.process.join()
        worker.pipe.close()
        if self.slots is not None:
            self.slots[worker.number].forget_what_is_under_way()
        for number in [number for number, change in self.changes.items() if worker in change.waits_for]:
            self._changed(number, worker)
        if self.stop_after_s is not None or self.failure is not None:
            return
        log.error("worker died", extra={"worker": worker.process.pid, "status": worker.process.exitcode})
        self.starts_at_s = time.monotonic() + self.pause_s
        self.pause_s = min(_MAX_PAUSE_S, 2 * self.pause_s or 0.5)

    def _send(self, worker: _Worker, message: Any) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            log.warning("a worker does not listen", extra={"worker": worker.process.pid})

    def _stop(self, after_s: float) -> None:
        self.listener.close()
        for worker in self.workers:
            self._send(worker, Drain(after_s))
        is_forced = False
        gives_up_at_s = time.monotonic() + after_s + self.settings.exit_timeout_s + _GRACE_S
        while self.workers and time.monotonic() < gives_up_at_s:
            self._hear()
            told = (self.stop_after_s if self.stop_after_s is not None else after_s, self.is_forced)
            if told != (after_s, is_forced):
                after_s, is_forced = told
                if is_forced:
                    gives_up_at_s = time.monotonic() + _GRACE_S
                for worker in self.workers:
                    self._send(worker, Drain(after_s, is_forced))
        for worker in self.workers:
            log.error("worker killed", extra={"worker": worker.process.pid})
            worker.process.kill()


def _work(
    settings: Settings,
    listener: socket.socket,
    pipe: Connection,
    unloaded: list[str],
    slots: list[Slot] | None,
    number: int,
) -> None:
    """The main function of a worker process."""
    configure(settings.log_format)
    from runtime.serving.server import run

    channel = Channel(pipe)
    figures = None if slots is None else Figures(slots, number)
    try:
        run(settings, listener=listener, channel=channel, unloaded=unloaded, figures=figures)
    except (ArtifactError, OSError) as error:
        channel.tell_failed(error)
        sys.exit(2)
