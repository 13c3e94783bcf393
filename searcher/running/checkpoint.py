"""Checkpoints: everything a run needs to resume, in one file that is written atomically."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from foundation.files import whole_file


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another run."""


def save_checkpoint(path: Path, state: Mapping[str, Any], *, keep: Path | None = None) -> None:
    """Writes tensors and plain values; an older checkpoint at `path` survives until the new one is complete.

    Args: keep: the older checkpoint is then renamed to this path instead of being replaced.
    Raises: OSError: the disk is full, or the folder cannot be written.
    """
    # Into memory first: torch reports a full disk as a RuntimeError that does not name the cause.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with whole_file(path, keep=keep) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, *, required: Collection[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint, with tensors on the CPU, without executing code that it may contain.

    Raises: CheckpointError: there is none, it is damaged, or it lacks one of the `required` keys.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here") from None
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many classes for damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({reason})") from None
    missing = [key for key in required if not isinstance(state, dict) or key not in state]
    if missing:
        raise CheckpointError(f"{path}: not a checkpoint of this kind (no {', '.join(missing)})")
    return state


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turns errors of restoring a state into a CheckpointError that says that the state is of another configuration."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{what} does not belong to this configuration ({reason})") from None
