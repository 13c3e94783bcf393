"""A chart of a table of counts: one square for each cell, darker for a larger share of its row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from charts.axes import FONT_PX, chart
from charts.svg import element, number, shortened, text, text_width

_TOP = 46.0
_SIDE, _SMALLEST_SIDE, _WIDEST = 40.0, 9.0, 620.0
_LONGEST_NAME = 150.0
# Narrower cells have no room for a number.
_READABLE_SIDE = 30.0
# Text stays readable on the darkest cell, in light and dark mode.
_DARKEST = 0.6


def matrix_chart(
    counts: Sequence[Sequence[int]], names: Sequence[str], *, title: str, row_label: str, column_label: str
) -> str:
    """Returns a square table as an SVG element; rows and columns have the same names.

    Args: counts: [K][K], row by row.
    """
    side = max(_SMALLEST_SIDE, min(_SIDE, _WIDEST / len(names)))
    subtitle = f"{row_label}, row by row; {column_label}, column by column"
    labels = [shortened(name, FONT_PX, _LONGEST_NAME) for name in names]
    margin = max(text_width(label, FONT_PX) for label in labels) + 10
    left, top, extent = margin, _TOP + 4, side * len(names)
    bottom = top + extent
    parts = [
        *_cells(counts, left=left, top=top, side=side),
        element(
            "path",
            class_="axis",
            d=f"M{number(left)} {number(top)}h{number(extent)}v{number(extent)}h{number(-extent)}z",
        ),
    ]
    if side >= FONT_PX:
        for index, label in enumerate(labels):
            middle = (index + 0.5) * side
            parts.append(text(label, left - 6, top + middle + 4, "muted end"))
            x, y = left + middle + 4, bottom + 10
            parts.append(text(label, x, y, "muted end", transform=f"rotate(-90 {number(x)} {number(y)})"))
    parts.append(text(subtitle, 0, 30, "muted"))
    return chart(
        *parts,
        title=title,
        description=f"{len(names)} by {len(names)} counts",
        width=max(left + extent, text_width(subtitle, FONT_PX), 410.0) + 10,
        height=bottom + (margin if side >= FONT_PX else 0) + 14,
    )


def _cells(counts: Sequence[Sequence[int]], *, left: float, top: float, side: float) -> Iterator[str]:
    for row_index, row in enumerate(counts):
        total = sum(row) or 1
        for column_index, count in enumerate(row):
            if count == 0:
                continue
            x, y = left + column_index * side, top + row_index * side
            # The root makes rare mistakes distinguishable from rarer mistakes.
            opacity = _DARKEST * math.sqrt(count / total)
            colour = "c0" if row_index == column_index else "c1"
            yield element(
                "rect", class_=f"{colour} dot", x=x, y=y, width=side, height=side, fill_opacity=f"{opacity:.2f}"
            )
            if side >= _READABLE_SIDE:
                yield text(f"{count:,}", x + side / 2, y + side / 2 + 4, "mid")
