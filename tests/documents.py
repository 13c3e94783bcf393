"""Where the documents lie, and what stands in their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("foundation", "charts", "datasets", "searcher", "exporter", "runtime")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The language and the text of each code block of a document, in order."""
    return _FENCE.findall(text)


def without_code(path: Path) -> str:
    """A document's prose."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))
