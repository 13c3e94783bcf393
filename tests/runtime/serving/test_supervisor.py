"""What the supervisor keeps in mind for workers that are started later."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runtime.serving.errors import UnknownError
from runtime.serving.processes.channel import Change, Changed
from runtime.serving.processes.supervisor import _Supervisor, _Worker
from runtime.serving.settings import Settings


@dataclass
class Pipe:
    sent: list[Any] = field(default_factory=list)

    def send(self, message: Any) -> None:
        self.sent.append(message)


def asked(action: str, error: UnknownError | None, *, unloaded: set[str]) -> set[str]:
    """The models that a later worker would not load, after a change in one worker of one."""
    pipe = Pipe()
    worker = _Worker(None, pipe, 0)  # type: ignore[arg-type]
    with socket.socket() as listener:
        supervisor = _Supervisor(Settings(Path("models")), listener, None, [worker], unloaded=unloaded)
        supervisor._on_message(worker, Change(7, action, "m"))
        assert pipe.sent == [Change(1, action, "m")]
        supervisor._on_message(worker, Changed(1, error))
    assert isinstance(pipe.sent[-1], Changed)
    return supervisor.unloaded


@pytest.mark.parametrize(
    ("action", "is_known", "before", "after"),
    [
        ("unload", True, set(), {"m"}),
        ("unload", False, set(), set()),
        ("load", True, {"m"}, set()),
        ("load", False, {"m"}, set()),
    ],
)
def test_only_models_that_there_are_stay_unloaded(
    action: str, is_known: bool, before: set[str], after: set[str]
) -> None:
    assert asked(action, None if is_known else UnknownError("no such model"), unloaded=before) == after
