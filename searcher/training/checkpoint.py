"""Checkpoints: everything a run needs to go on, in one file that is whole or absent."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.files import whole_file


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another run."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; an older checkpoint at `path` survives until the new one is whole.

    Raises: OSError: the disk is full, or the folder cannot be written.
    """
    # Into memory first: torch reports a full disk as a RuntimeError without saying what it was.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without running anything it might contain.

    Raises: CheckpointError: there is none, or it is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here") from None
    except OSError:
        raise
    except Exception as error:  # torch's reader meets damaged bytes with errors of every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({reason})") from None
