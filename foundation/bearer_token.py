"""The token that a server asks of its clients, as it lies in a file."""

from __future__ import annotations

from pathlib import Path


def is_token(text: str) -> bool:
    """Whether a header can carry it as a token: printable ASCII characters."""
    return text != "" and text.isascii() and text.isprintable()


def token_in(path: Path) -> str:
    """The text of a file, which may be no token. Raises: OSError: the file cannot be read."""
    # What is no text at all becomes characters that no token has.
    return path.read_text(encoding="utf-8", errors="replace").strip()
