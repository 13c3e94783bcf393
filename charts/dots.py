"""Measured values as dots on a common axis, one row for each group: their positions and their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charts.axes import Axis, chart, x_marks
from charts.svg import element, number, text

_WIDTH = 760.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 190.0, 20.0, 34.0, 42.0
_RADIUS = 4.0
_PITCH = 2 * _RADIUS + 1
_TALLEST_STACK = 12


@dataclass(frozen=True)
class Row:
    """A group of values with its name; `marked` is the index of a value to highlight."""

    name: str
    values: Sequence[float]
    caption: str = ""
    marked: int | None = None


def dot_chart(rows: Sequence[Row], *, title: str, x_label: str, percent: bool = False) -> str:
    """Rows of stacked dots as an SVG element. Every row must have a value."""
    axis = Axis.around(
        [value for row in rows for value in row.values], _LEFT, _WIDTH - _RIGHT, margin=0.04, percent=percent
    )
    parts: list[str] = []
    bottom = _TOP
    for index, row in enumerate(rows):
        columns = [round(axis.px(value) / _PITCH) for value in row.values]
        tallest = max(Counter(columns).values())
        pitch = min(_PITCH, _PITCH * _TALLEST_STACK / tallest)  # higher stacks overlap rather than grow
        bottom += max(40.0, tallest * pitch + 2 * _RADIUS) + 8
        parts += _row(row, columns, index, bottom=bottom, pitch=pitch)
    parts += x_marks(axis, bottom=bottom + 6, label=x_label)
    description = "; ".join(f"{row.name}: {len(row.values)} values" for row in rows)
    return chart(*parts, title=title, description=description, width=_WIDTH, height=bottom + 6 + _BOTTOM)


def _row(row: Row, columns: Sequence[int], index: int, *, bottom: float, pitch: float) -> Iterator[str]:
    yield element("path", class_="grid", d=f"M{number(_LEFT)} {number(bottom)}H{number(_WIDTH - _RIGHT)}")
    yield text(row.name, 0, bottom - 18, "b")
    yield text(row.caption, 0, bottom - 3, "muted")
    stacked: Counter[int] = Counter()
    # The marked value first, so that it lies at the bottom of its stack, where a label can point at it.
    order = sorted(range(len(columns)), key=lambda i: i != row.marked)
    for place in order:
        column = columns[place]
        x, y = column * _PITCH, bottom - _RADIUS - 1 - stacked[column] * pitch
        stacked[column] += 1
        yield element("circle", class_=f"c{index} dot", cx=x, cy=y, r=_RADIUS)
        if place == row.marked:
            yield element("circle", class_="c1 ring", cx=x, cy=y, r=_RADIUS + 3)
