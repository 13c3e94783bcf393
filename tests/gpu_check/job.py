"""What a stage's process is asked for, and the record it leaves.

The record is rewritten with every figure, so a stage that is stopped half-way keeps what it has measured.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.files import write_text


@dataclass(frozen=True)
class Job:
    """How a stage is to be done."""

    device_name: str
    """cuda or cpu."""
    folder: Path
    """For logs and other files of its own."""
    deadline: float
    """On `time.monotonic`'s clock, in seconds: when the stage should have ended."""
    tiny: bool = False
    """At sizes that a CPU does in a second; the figures mean nothing then."""
    full: bool = False
    """With what takes more than a few minutes."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


@dataclass
class Record:
    """A stage's checks and figures. path: of its file, in JSON."""

    path: Path
    checks: list[dict[str, Any]] = field(default_factory=list)
    """Each with name, passed, and detail, which may be empty."""
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Write down whether something is as it should be."""
        self.checks.append({"name": name, "passed": bool(passed), "detail": detail})
        print(f"{'passed' if passed else 'FAILED'}: {name}{f' ({detail})' if detail else ''}", flush=True)
        self.save()

    def note(self, **figures: Any) -> None:
        """Write down figures by name."""
        self.figures.update(figures)
        print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)
        self.save()

    def row(self, table: str, row: dict[str, Any]) -> None:
        """Add a row to a table of figures."""
        self.figures.setdefault(table, []).append(row)
        print(row, flush=True)
        self.save()

    def save(self) -> None:
        write_text(self.path, json.dumps({"checks": self.checks, "figures": self.figures}))
