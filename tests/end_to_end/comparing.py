"""Whether two runs came to the same, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from searcher.running.checkpoint import load_checkpoint


def metrics(stage: Path) -> list[dict[str, Any]]:
    """The records of a stage without what depends on the clock."""
    records = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "step_ms"} for record in records]


def assert_equal_states(first: Any, second: Any, place: str = "") -> None:
    """Equal checkpoints, tensors to the bit, whatever the clock says."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            if key not in ("seconds", "metrics_position"):
                assert_equal_states(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, list):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal_states(a, b, f"{place}/{i}")
    else:
        assert first == second or first != first, place  # nan, the baseline before there are rewards, equals nothing


def assert_equal_stages(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    assert_equal_states(load_checkpoint(first / "checkpoint.pt"), load_checkpoint(second / "checkpoint.pt"))
