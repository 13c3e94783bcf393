"""Locks on open files, which order processes. The system releases one when its file is closed or its process ends.

Some file systems have no locks, such as Lustre without its option `flock` and some mounts of NFS; then the caller
decides what to do.
"""

from __future__ import annotations

from typing import IO, Literal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LockState = Literal["held", "in use", "unavailable"]


def try_lock(file: int | IO[bytes]) -> LockState:
    """Lock a file for this process alone, without waiting: held, in use by another process, or unavailable."""
    if fcntl is None:
        return "unavailable"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "in use"
    except OSError:
        return "unavailable"
    return "held"


def share_lock(file: int | IO[bytes]) -> LockState:
    """Takes a shared lock, after waiting until no process holds an exclusive one: held, or unavailable."""
    if fcntl is None:
        return "unavailable"
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return "unavailable"
    return "held"
