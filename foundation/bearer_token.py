"""Reads and checks the token that a server requires from its clients, stored in a file."""

from __future__ import annotations

from pathlib import Path


def is_token(text: str) -> bool:
    """Whether an HTTP header can carry a text as a token: printable ASCII characters, at least one."""
    return text != "" and text.isascii() and text.isprintable()


def token_in(path: Path) -> str:
    """Returns the text of a file, which may not be a valid token. Raises: OSError: the file cannot be read."""
    # Bytes that are not UTF-8 become a character that is not allowed in a token.
    return path.read_text(encoding="utf-8", errors="replace").strip()
