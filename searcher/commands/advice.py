"""What commands advise to do next with a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from searcher.arch.errors import ArchitectureError
from searcher.lineage import is_retraining_outdated


def retrain_advice(run: Path) -> str:
    """How to train the network that has just been chosen."""
    command = f"enas retrain {shlex.quote(str(run))}"
    try:
        is_outdated = is_retraining_outdated(run)
    except ArchitectureError:  # what was retrained is damaged
        is_outdated = True
    if is_outdated:
        return f"{command} --force; what is retrained there, and its model, are still of another network"
    return command
