"""Processes forked from one that has imported torch and all commands, and has done nothing else.

Each is as real as a start of Python, with a number, signals, an end and children of its own, and begins two seconds of
CPU time sooner. Not for tests of what is imported, or of what libraries read from the environment when they are loaded.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

PRELOADED = (
    "enas",
    "exporter.commands.compare",
    "exporter.commands.export",
    "exporter.commands.rank",
    "exporter.commands.retrain",
    "exporter.delivery.export",
    "exporter.judging.comparison",
    "exporter.judging.ranking",
    "searcher.commands.search",
    "searcher.training.search",
    "tests.end_to_end.two_processes",
)


def forking() -> ForkServerContext:
    """How processes are made: the server they are forked from starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


class Forked:
    """A function's call under way, in a process of its own. What it has of `subprocess.Popen` does the same."""

    def __init__(self, function: Callable[..., object], *arguments: Any, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        arguments = (function, arguments, dict(env), os.getcwd(), self._files)
        self._process = forking().Process(target=_call, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    @property
    def said(self) -> tuple[str, str]:
        """What it has written to stdout and to stderr."""
        output, errors = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._files)
        return output, errors

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end. Raises: subprocess.TimeoutExpired: it has not come."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.said


def enas(*words: str) -> None:
    """The command line: what a `Forked` of it is given."""
    from enas import main

    sys.argv = ["enas", *words]
    main()


def _call(
    function: Callable[..., object], arguments: Sequence[Any], env: dict[str, str], folder: str, files: Sequence[Path]
) -> None:
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    function(*arguments)
