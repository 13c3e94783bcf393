"""The results of a check: one document, what follows from it, and where such documents are kept."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "golden" / "gpu"
"""Of every GPU the check ran on, failures too, as <date>-<gpu>.json."""
MAX_BYTES = 100_000
FORMAT = 1

_WORTHWHILE, _WORTHLESS = 1.2, 1.0


def make(
    stages: list[dict[str, Any]], *, date: str, command: str, device: str, tiny: bool, full: bool
) -> dict[str, Any]:
    """The document of the stages so far. date: ISO 8601. command: as it was typed."""
    results = {
        "format": FORMAT,
        "date": date,
        "command": command,
        "device": device,
        "tiny": tiny,
        "full": full,
        "stages": stages,
    }
    return {**results, "cuda_graphs": graphs_verdict(results).__dict__}


def to_json(results: dict[str, Any]) -> str:
    """One line a stage and a row. Raises: ValueError: it is too large to be kept."""
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    # A table's row on a line of its own: innermost objects and lists hold no others.
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda match: re.sub(r"\n\s*", " ", match[0]), text)
    if len(text.encode()) >= MAX_BYTES:
        raise ValueError(f"the results are {len(text.encode()):,} bytes; at most {MAX_BYTES:,} are kept")
    return text


def counts(results: dict[str, Any]) -> tuple[int, int]:
    """How many checks passed, and how many failed."""
    passed = [check["passed"] for stage in results["stages"] for check in stage["checks"]]
    return sum(passed), len(passed) - sum(passed)


def figures(results: dict[str, Any], stage: str) -> dict[str, Any]:
    """A stage's figures; none where it left none."""
    return next((found["figures"] for found in results["stages"] if found["name"] == stage), {})


@dataclass(frozen=True)
class GraphsVerdict:
    """What the results say of `--cuda-graphs`."""

    default: Literal["on", "off"]
    worthless: bool
    """Whether it has to be rebuilt or removed."""
    reason: str


def graphs_verdict(results: dict[str, Any]) -> GraphsVerdict:
    """On by default only if all tests of graphs pass and the preset's step is at least 1.2 times as fast with them.

    Below 1.0 they are to be rebuilt or removed. Not measured is not on.
    """
    ms = {
        row["graphs"]: row["ms"]
        for row in figures(results, "probe").get("probe", [])
        if row["update_unused"] and row["precision"] == "auto"
    }
    if set(ms) != {False, True}:
        return GraphsVerdict("off", False, "a step of the preset was not measured both with graphs and without them")
    ratio = ms[False] / ms[True]
    found = f"a step of the preset is {ratio:.2f} times as fast with graphs"
    if ratio < _WORTHLESS:
        return GraphsVerdict("off", True, found)
    if ratio < _WORTHWHILE:
        return GraphsVerdict("off", False, f"{found}, less than {_WORTHWHILE}")
    found_by_tests = figures(results, "tests")
    tests = found_by_tests.get("graph_tests", {})
    ended = any(stage["name"] == "tests" and stage["status"] == "ended" for stage in results["stages"])
    if (
        not ended
        or found_by_tests.get("out_of_time")
        or not tests.get("passed")
        or tests.get("failed")
        or tests.get("not collected")
    ):
        said = ", ".join(f"{count} {outcome}" for outcome, count in tests.items()) or "none ran"
        said += ", then no time left" if found_by_tests.get("out_of_time") else ""
        return GraphsVerdict("off", False, f"{found}, but not all tests of graphs pass ({said})")
    return GraphsVerdict("on", False, f"{found}, and all {tests['passed']} tests of graphs pass")


def kept() -> list[Path]:
    """All results that are kept, the newest last."""
    return sorted(KEPT.glob("*.json"))


def kept_name(results: dict[str, Any]) -> str:
    """The file name under which results are kept."""
    gpu = figures(results, "environment").get("gpu") or results["device"]
    return f"{results['date'][:10]}-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"
