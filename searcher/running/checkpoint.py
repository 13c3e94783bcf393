"""Checkpoints: everything a run needs to go on, in one file that is whole or absent."""

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
    """Write tensors and plain values; an older checkpoint at `path` survives until the new one is whole.

    keep: the name it gets then, instead of being replaced.

    Raises: OSError: the disk is full, or the folder cannot be written.
    """
    # Into memory first: torch reports a full disk as a RuntimeError without saying what it was.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with whole_file(path, keep=keep) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, *, required: Collection[str] = ()) -> dict[str, Any]:
    """Read a checkpoint, tensors onto the CPU, without running anything it might contain.

    Raises: CheckpointError: there is none, it is damaged, or it lacks one of the `required` keys.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here") from None
    except OSError:
        raise
    except Exception as error:  # torch's reader meets damaged bytes with errors of every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({reason})") from None
    missing = [key for key in required if not isinstance(state, dict) or key not in state]
    if missing:
        raise CheckpointError(f"{path}: not a checkpoint of this kind (no {', '.join(missing)})")
    return state


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn what goes wrong when a state is put into place into a CheckpointError that says it is of another run."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{what} does not belong to this configuration ({reason})") from None
