"""A process that is killed at each of its changes to files, one after the other: what it leaves behind is looked at."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
_MOST_CHANGES = 200


def kill_at_every_change(write: Callable[[], object], folder: Path, look: Callable[[], object]) -> int:
    """Fork, kill the child before its n-th change below `folder`, and look; n grows until it ends by itself.

    Each child finds what the one before it left. Returns: how many were killed.
    """
    for moment in range(_MOST_CHANGES):
        child = os.fork()
        if child == 0:
            try:
                _kill_at(moment, folder)
                write()
            except BaseException as error:
                print(f"the child failed: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        look()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return moment
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError(f"more than {_MOST_CHANGES} changes")


def _kill_at(moment: int, folder: Path) -> None:
    left = moment
    root = os.fspath(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_change = event in _CHANGES or (event == "open" and _writes(arguments))
        if is_change and str(arguments[0]).startswith(root):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "r" not in (mode or "r")
