"""Measured points with their intervals; each group is labelled at its end, and may be joined by a line.

Knows only groups of numbers; their meaning is in their names and the axes' labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charts.axes import FONT_PX, Axis, chart, x_marks, y_marks
from charts.end_labels import colour_of, end_labels
from charts.svg import element, number, shortened, text_width

_WIDTH, _HEIGHT = 620.0, 320.0
_LEFT, _TOP, _BOTTOM = 58.0, 46.0, 40.0
_LEAST_RIGHT, _MOST_RIGHT = 120.0, 260.0
_RADIUS = 3.5

Range = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    x_range: Range | None = None
    """Low and high around x, drawn as a bar."""
    y_range: Range | None = None


@dataclass(frozen=True)
class Group:
    name: str
    marks: Sequence[Mark]
    """In the order in which they are joined; at least one."""
    is_joined: bool = True


def mark_chart(
    groups: Sequence[Group],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] = (),
    y_is_log: bool = True,
    y_percent: bool = False,
) -> str:
    """Returns a chart as an SVG element, with a logarithmic x axis.

    Args: x_ticks: ticks of the x axis; if empty, round numbers. y_is_log: whether the y axis is logarithmic, too.
        y_percent: write y in per cent; the values stay fractions.
    """
    labels = [shortened(group.name, FONT_PX, _MOST_RIGHT - 18) for group in groups]
    right = min(_MOST_RIGHT, max(_LEAST_RIGHT, *(text_width(label, FONT_PX) + 18 for label in labels)))
    marks = [mark for group in groups for mark in group.marks]
    xs = [x for mark in marks for x in (mark.x, *(mark.x_range or ()))]
    ys = [y for mark in marks for y in (mark.y, *(mark.y_range or ()))]
    x_axis = Axis.logarithmic(xs, _LEFT + 8, _WIDTH - right, ticks=x_ticks, margin=0.04)
    if y_is_log:
        y_axis = Axis.logarithmic(ys, _HEIGHT - _BOTTOM, _TOP, margin=0.06)
    else:
        y_axis = Axis.around(ys, _HEIGHT - _BOTTOM, _TOP, margin=0.06, percent=y_percent)
    ends = [(x_axis.px(mark.x) + _RADIUS, y_axis.px(mark.y)) for mark in (group.marks[-1] for group in groups)]
    return chart(
        *y_marks(y_axis, left=_LEFT, right=x_axis.end_px, label=y_label),
        *x_marks(x_axis, bottom=y_axis.start_px, label=x_label),
        *end_labels(labels, ends, x_axis, y_axis, leader="axis dashed"),
        *(part for index, group in enumerate(groups) for part in _drawn(group, x_axis, y_axis, colour_of(index))),
        title=title,
        description="; ".join(f"{group.name}: {len(group.marks)} points" for group in groups),
        width=_WIDTH,
        height=_HEIGHT,
    )


def _drawn(group: Group, x_axis: Axis, y_axis: Axis, colour: str) -> Iterator[str]:
    places = [(x_axis.px(mark.x), y_axis.px(mark.y)) for mark in group.marks]
    if len(places) > 1 and group.is_joined:
        path = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in places)
        yield element("path", class_=f"{colour} curve", d=path)
    for mark, (x, y) in zip(group.marks, places, strict=True):
        if mark.x_range is not None:
            low, high = map(x_axis.px, mark.x_range)
            yield element("path", class_=f"{colour} curve", d=f"M{number(low)} {number(y)}H{number(high)}")
        if mark.y_range is not None:
            low, high = map(y_axis.px, mark.y_range)
            yield element("path", class_=f"{colour} curve", d=f"M{number(x)} {number(low)}V{number(high)}")
        yield element("circle", class_=f"{colour} dot", cx=x, cy=y, r=_RADIUS)
