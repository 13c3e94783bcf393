"""Writing SVG: elements, escaped text, short numbers. Knows nothing of what is drawn."""

from __future__ import annotations

import html
import re

FONT = "ui-sans-serif,system-ui,sans-serif"
_WIDEST_ADVANCE_EM = 0.58
"""Mean advance of a letter in the widest usual sans-serif (DejaVu Sans), so that boxes hold their text in any font."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """`<tag attributes>children</tag>`. Children are markup; `stroke_width` is written stroke-width, `class_` class."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def text(words: str, x: float, y: float, class_: str | None = None, **attributes: str | float | None) -> str:
    """A line of text whose baseline begins at x, y."""
    return element("text", escaped(words), x=x, y=y, class_=class_, **attributes)


def escaped(words: str) -> str:
    """`words` as markup; characters that XML cannot hold are replaced."""
    return html.escape(_NOT_XML.sub("\ufffd", words), quote=False)


def number(value: float) -> str:
    """Formats a number with at most one decimal: a tenth of a pixel is not visible."""
    rounded = round(value, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:g}" if abs(rounded) < 1e5 else f"{rounded:.0f}"


def text_width(words: str, size_px: float) -> float:
    """An upper estimate of the width of `words` in any font, px."""
    return len(words) * size_px * _WIDEST_ADVANCE_EM


def shortened(words: str, size_px: float, width: float) -> str:
    """`words`, cut in the middle if they would be wider than `width`, px."""
    longest = max(5, int(width / (size_px * _WIDEST_ADVANCE_EM)))
    if len(words) <= longest:
        return words
    head = longest // 2
    return f"{words[:head]}…{words[len(words) - (longest - head - 1) :]}"


def _value(value: str | float | None) -> str:
    return html.escape(_NOT_XML.sub("\ufffd", value)) if isinstance(value, str) else number(value or 0.0)
