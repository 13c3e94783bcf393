"""The token that a server asks of its clients, as it lies in a file."""

from __future__ import annotations

from pathlib import Path


def token_in(path: Path) -> str:
    """The token in a file, unchecked; empty where there is none. Raises: OSError: the file cannot be read."""
    # What is no text at all becomes characters that no token has.
    return path.read_text(encoding="utf-8", errors="replace").strip()
