"""Operations as coloured chips with their names, and the families the colours stand for."""

from __future__ import annotations

import re
import zlib

from charts.svg import element, text, text_width
from searcher.report.layout import Box

FONT_PX = 12.0
CHIP_HEIGHT = 26.0
CHIP_PADDING = 8.0

# (word in the operation's name, family, colour), in the legend's order. The hues are Okabe and Ito's, which
# colour-blind readers can tell apart; every chip also carries its name.
_FAMILIES = (
    ("conv", "convolution", "blue"),
    ("pool", "pooling", "orange"),
    ("identity", "identity", "green"),
    ("residual", "residual", "blue"),
    ("fused", "fused", "orange"),
    ("inverted", "inverted", "green"),
    ("tanh", "activation", "pink"),
    ("relu", "activation", "pink"),
    ("sigmoid", "activation", "pink"),
)
_OTHER_COLOURS = ("pink", "violet", "grey")


def chip(operation: str, box: Box) -> str:
    """The chip's markup."""
    return element(
        "rect", class_=colour(family(operation)), x=box.left, y=box.top, width=box.width, height=box.height, rx=5
    ) + text(_label(operation), box.centre, box.top + 17, "mid")


def needed_width(operation: str) -> float:
    """How wide the chip of an operation must be, px."""
    return text_width(_label(operation), FONT_PX) + 2 * CHIP_PADDING


def family(operation: str) -> str:
    """An operation's family as the legend names it; if unknown, part of its own name: `ghost` of `ghost_3x3_e2`."""
    known = (family for word, family, _ in _FAMILIES if word in operation)
    return next(known, re.split(r"_\d", operation)[0].replace("_", " "))


def colour(family: str) -> str:
    """The class of a family's chips. An unknown family has the same colour in every drawing."""
    known = {name: colour for _, name, colour in _FAMILIES}
    return known.get(family, _OTHER_COLOURS[zlib.crc32(family.encode()) % len(_OTHER_COLOURS)])


def family_rank(operation: str) -> tuple[int, str]:
    """A sort key: operations in the legend's order of families, unknown families last."""
    families = [family for _, family, _ in _FAMILIES]
    found = family(operation)
    return families.index(found) if found in families else len(families), operation


def _label(operation: str) -> str:
    """An operation's readable name: `sep conv 3×3` for `sep_conv_3x3`, `fused 3×3, ×4` for `fused_3x3_e4`."""
    name = re.sub(r"_e(\d+)$", r", ×\1", operation)
    return re.sub(r"(\d+)x(\d+)", r"\1×\2", name).replace("_", " ")
