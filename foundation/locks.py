"""Locks on open files, which order processes. The system releases one when its file is closed or its process ends.

A file system may have none, as Lustre without its option `flock` and some mounts of NFS: the caller decides what then.
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
    """Lock a file together with others that share it, as soon as no process holds it alone: held, or unavailable."""
    if fcntl is None:
        return "unavailable"
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return "unavailable"
    return "held"
