"""The next command that commands recommend for a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from searcher.arch.errors import ArchitectureError
from searcher.lineage import is_retraining_outdated


def retrain_advice(run: Path) -> str:
    """Returns the command that retrains the network just chosen; notes if an older retraining is in the way."""
    command = f"enas retrain {shlex.quote(str(run))}"
    try:
        is_outdated = is_retraining_outdated(run)
    except ArchitectureError:  # the retraining's files are damaged
        is_outdated = True
    if is_outdated:
        return f"{command} --force; what is retrained there, and its model, are still of another network"
    return command
