"""Makes names from outside, such as file names, safe to print on a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    r"""Returns the text on one line, with control characters and non-UTF-8 bytes of a file name escaped, as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    # Spaces of other widths, and the joiners inside words of many scripts, are harmless.
    if character.isprintable() or unicodedata.category(character) == "Zs" or character in "\u200c\u200d":
        return character
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that it cannot decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def is_utf8(name: str) -> bool:
    """Whether a file's name is valid UTF-8; Python keeps any other byte as half of a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(names: Sequence[str], limit: int = 5) -> str:
    """`'a', 'b' and 3 more`, on one line."""
    quoted = ", ".join(f"'{printable(name)}'" for name in names[:limit])
    return quoted if len(names) <= limit else f"{quoted} and {len(names) - limit} more"


def shape_text(shape: Sequence[int]) -> str:
    """`14×14×64`."""
    return "×".join(map(str, shape))
