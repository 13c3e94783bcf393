"""The report's section on a derivation: the candidates trained, and their results in each rung."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.tables import ABSENT
from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import derived_in, read_object


def derivation_section(run: Path, figures: Figures) -> Iterator[str]:
    """Yields the candidates, ordered by the results of their last rungs, if training chose the run's architecture."""
    document = read_object(run / "derivation.json")
    if document.get("chosen") != derived_in(run):
        return
    candidates, rungs = document.get("candidates"), document.get("rungs")
    if not (isinstance(candidates, list) and isinstance(rungs, list) and rungs):
        return
    target = document.get("target_ms")
    chosen = document.get("chosen")
    why = _why(chosen, rungs[-1]["scores"], figures.metric)
    words = f"Of {len(candidates)} networks that were trained, {chosen} was chosen: {why}"
    words += f"; all take {values.three_digits(target)} ms as measured" if isinstance(target, float) else ""
    rows = [
        [
            f"<strong>{html.escaped(one['name'])}</strong>" if one["name"] == chosen else html.escaped(one["name"]),
            values.three_digits(one.get("latency_ms")) or ABSENT,
            figures.written_reward(one.get("reward")) or ABSENT,
            *(cell for rung in rungs for cell in _cells(one["name"], rung, figures)),
        ]
        for one in sorted(candidates, key=lambda one: _standing(one, rungs), reverse=True)
    ]
    header = ["network", "ms", f"{figures.reward}, shared weights"]
    for rung in rungs:
        header += [f"validation {figures.metric}, {rung['epochs']} epochs", "training loss"]
    table = html.table([html.escaped(cell) for cell in header], rows)
    yield html.section("Derivation", [f"<p>{html.escaped(words)}.</p>", table])


def _cells(name: str, rung: Mapping[str, Any], figures: Figures) -> Iterator[str]:
    """The score and training loss of a candidate in a rung."""
    yield figures.written(rung["scores"].get(name)) or ABSENT
    yield values.three_digits(rung.get("losses", {}).get(name)) or ABSENT


def _why(chosen: Any, scores: Mapping[str, Any], metric: str) -> str:
    """Why the candidate was chosen; its accuracy in the last rung need not be the highest, see `enas derive`."""
    if metric != "accuracy" or all(other is None or scores[chosen] >= other for other in scores.values()):
        return "the best on validation data"
    return "of those that validation data cannot tell from the best, the one that trained best, by loss and by accuracy"


def _standing(candidate: Mapping[str, Any], rungs: list[Mapping[str, Any]]) -> tuple[int, float]:
    """The number of rungs in which a candidate was trained, and its score in the last of them."""
    scores = [rung["scores"][candidate["name"]] for rung in rungs if candidate["name"] in rung["scores"]]
    return len(scores), scores[-1] if scores and scores[-1] is not None else float("-inf")
