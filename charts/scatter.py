"""Pairs of measured values as dots in a square of two axes."""

from __future__ import annotations

from collections.abc import Sequence

from charts.axes import Axis, chart, x_marks, y_marks
from charts.svg import element

_SIDE = 320.0
_LEFT, _TOP, _BOTTOM, _RIGHT = 58.0, 46.0, 40.0, 20.0
_RADIUS = 4.0


def scatter_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_percent: bool = False,
    y_percent: bool = False,
) -> str:
    """Returns a chart of at least one point (x, y) as an SVG element.

    Args: x_percent, y_percent: write the axis in per cent; the values stay fractions.
    """
    xs, ys = zip(*points, strict=True)
    x_axis = Axis.around(xs, _LEFT, _LEFT + _SIDE, margin=0.06, percent=x_percent)
    y_axis = Axis.around(ys, _TOP + _SIDE, _TOP, margin=0.06, percent=y_percent)
    return chart(
        *y_marks(y_axis, left=x_axis.start_px, right=x_axis.end_px, label=y_label),
        *x_marks(x_axis, bottom=y_axis.start_px, label=x_label),
        *(element("circle", class_="c0 dot", cx=x_axis.px(x), cy=y_axis.px(y), r=_RADIUS) for x, y in points),
        title=title,
        description=f"{len(points)} points",
        width=_LEFT + _SIDE + _RIGHT,
        height=_TOP + _SIDE + _BOTTOM,
    )
