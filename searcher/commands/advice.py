"""What commands advise to do next with a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from searcher.arch.catalog import is_retraining_outdated


def retrain_advice(run: Path) -> str:
    """How to train the network that has just been chosen. Raises: as `is_retraining_outdated`."""
    command = f"enas retrain {shlex.quote(str(run))}"
    if is_retraining_outdated(run):
        return f"{command} --force; what is retrained there, and its model, are still of another network"
    return command
