"""How a process leaves the others; how they work together is in `tests/end_to_end/test_distributed.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from searcher.running import distributed
from searcher.running.distributed import joined
from searcher.running.interrupt import Stopped


class Watch:
    """Stands for the pulse that a GPU's process has, and notes in which order the process leaves."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def stop(self, *, leaves: bool) -> None:
        self._events.append("left" if leaves else "lost")


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (None, ["left", "group destroyed"]),
        (Stopped(), ["left", "group destroyed"]),  # others may still write their checkpoint
        (ValueError("a fault of this process alone"), ["lost"]),
    ],
)
def test_a_process_that_stops_as_planned_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, ending: Exception | None, expected: list[str]
) -> None:
    events: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    torch_distributed: Any = torch.distributed
    monkeypatch.setattr(torch_distributed, "rendezvous", lambda *_, **__: iter([(None, 1, 2)]))
    monkeypatch.setattr(torch_distributed, "destroy_process_group", lambda: events.append("group destroyed"))
    monkeypatch.setattr(distributed, "_begin", lambda *_: Watch(events))

    def run() -> None:
        with joined(torch.device("cpu")):
            if ending is not None:
                raise ending

    if ending is None:
        run()
    else:
        with pytest.raises(type(ending)):
            run()
    assert events == expected
