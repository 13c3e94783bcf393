"""The exclusive right to write a store: one process at a time, with no files left behind however it ends."""

from __future__ import annotations

import glob
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self, TypeVar

from datasets.store import StoreError
from foundation.locks import try_lock

T = TypeVar("T")

_LEFT_OVER = re.compile(r"\.(.+\.h5)\.([0-9a-f]{8}\.tmp|lock)")
"""The names of an unfinished store of `whole_file`, and of the lock beside a store."""


@contextmanager
def claimed(path: Path, *, force: bool) -> Iterator[None]:
    """Hold a store's lock during the block, in which SIGTERM ends the program with a clean-up, as Ctrl-C does.

    Files that killed imports left in the folder are removed first.
    Raises: StoreError: another process is writing the store, the store exists and `force` is not set, or the folder
        cannot be written.
    """
    refuse_existing(path, force=force)
    path = Path(os.path.realpath(path))  # the target of a link is written, not the link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _try_lock(path)
    except OSError as error:
        raise StoreError(f"{path}: could not be written: {error.strerror or error}") from error
    if lock is None:
        raise StoreError(f"{path}: another import or fetch is writing it; wait for its end")
    try:
        # The previous writer may have finished between our first check and the lock.
        refuse_existing(path, force=force)
        _sweep(path.parent, own=path.name)
        with _ended_by_sigterm():
            yield
    finally:
        _unlock(path, lock)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises: StoreError: `path` exists, and `force` is not set."""
    if path.exists() and not force:
        raise StoreError(f"{path}: is there already; --force replaces it")


def _sweep(folder: Path, *, own: str) -> None:
    """Remove temporary stores and locks whose writer has ended; a running writer holds its lock."""
    left_over = [match[1] for path in folder.iterdir() if (match := _LEFT_OVER.fullmatch(path.name))]
    for name in dict.fromkeys([own, *left_over]):
        lock = None if name == own else _try_lock(folder / name)
        if name != own and lock is None:
            continue
        for temporary in folder.glob(f".{glob.escape(name)}.*.tmp"):
            temporary.unlink(missing_ok=True)
        if lock is not None:
            _unlock(folder / name, lock)


# --- locks, which the system releases when a process dies ------------------------------------------------------------


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _try_lock(path: Path) -> int | None:
    """Returns a descriptor that holds the lock of a store; None if another process holds it. Raises: OSError."""
    lock = _lock_path(path)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        # On a file system without locks, only the rename at the end orders the writers.
        if try_lock(descriptor) == "in use":
            os.close(descriptor)
            return None
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner has just removed it: try the next file at that path


def _unlock(path: Path, descriptor: int) -> None:
    _lock_path(path).unlink(missing_ok=True)
    os.close(descriptor)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit in the block, so that every `finally` runs; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    previous: Any = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class DeferredSignals:
    """Defers SIGINT and SIGTERM to the end of the block: HDF5 loses an exception that a handler raises in a callback.

    Has no effect outside the main thread, where handlers are never called.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}
        self._is_open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handle()

    def handled_between(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the same items; signals are handled immediately while an item is produced."""
        iterator = iter(items)
        while True:
            self._is_open = True
            self._handle()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._is_open = False
            yield item

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        if self._is_open:
            self._handle()

    def _handle(self) -> None:
        while self._came:
            number = self._came.pop(0)
            self._handlers[number](number, None)
