"""Operations as coloured chips with their names, and the families the colours stand for."""

from __future__ import annotations

import re

from charts.svg import element, text, text_width
from searcher.report.layout import Box

FONT_PX = 12.0
CHIP_HEIGHT = 26.0
CHIP_PADDING = 8.0

# Families of operations with the word that gives them away. The hues are Okabe and Ito's, which the colour-blind tell
# apart too; every chip also carries its name.
_FAMILIES = (
    ("conv", "convolution"),
    ("pool", "pooling"),
    ("identity", "identity"),
    ("residual", "residual"),
    ("fused", "fused"),
    ("inverted", "inverted"),
)
_OTHER_FAMILY = "activation"


def chip(operation: str, box: Box) -> str:
    """The chip's markup."""
    return element(
        "rect", class_=family(operation), x=box.left, y=box.top, width=box.width, height=box.height, rx=5
    ) + text(_label(operation), box.centre, box.top + 17, "mid")


def needed_width(operation: str) -> float:
    """How wide the chip of an operation must be, px."""
    return text_width(_label(operation), FONT_PX) + 2 * CHIP_PADDING


def family(operation: str) -> str:
    """The family an operation belongs to: the class of its chip, and its word in the legend."""
    return next((family for word, family in _FAMILIES if word in operation), _OTHER_FAMILY)


def family_rank(operation: str) -> tuple[int, str]:
    """Orders operations as the legend has their families."""
    families = [family for _, family in _FAMILIES] + [_OTHER_FAMILY]
    return families.index(family(operation)), operation


def _label(operation: str) -> str:
    """As people write it: `sep_conv_3x3` is `sep conv 3×3`, and `fused_3x3_e4` is `fused 3×3, ×4`."""
    name = re.sub(r"_e(\d+)$", r", ×\1", operation)
    return re.sub(r"(\d+)x(\d+)", r"\1×\2", name).replace("_", " ")
