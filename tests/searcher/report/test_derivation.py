"""What the report says of a derivation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from searcher.report.figures import figures_of
from searcher.report.sections.derivation import derivation_section

BY_LOSS = "of those that validation data cannot tell from the best, the one that trained best, by loss and by accuracy"


@pytest.mark.parametrize(
    ("space", "scores", "words"),
    [
        ("stages", {"a": 0.85, "b": 0.84}, "a was chosen: the best on validation data"),
        ("stages", {"a": 0.84, "b": 0.85}, f"a was chosen: {BY_LOSS}"),
        ("stages", {"a": 0.84, "b": None}, "a was chosen: the best on validation data"),
        ("recurrent", {"a": 110.0, "b": 120.0}, "a was chosen: the best on validation data"),
    ],
)
def test_it_says_why_a_network_was_chosen(
    space: str, scores: dict[str, float | None], words: str, tmp_path: Path
) -> None:
    document: dict[str, Any] = {
        "chosen": "a",
        "target_ms": None,
        "candidates": [{"name": name, "latency_ms": None, "reward": None} for name in scores],
        "rungs": [{"epochs": 2, "scores": scores, "losses": dict.fromkeys(scores, 0.5)}],
    }
    (tmp_path / "derivation.json").write_text(json.dumps(document))
    (tmp_path / "spec.json").write_text('{"provenance": {"derivation": {"chosen": "a"}}}')
    page = "".join(derivation_section(tmp_path, figures_of(space, {})))
    assert words in page
    assert "0.5" in page
