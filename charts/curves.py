"""Learning curves as SVG: lines over a common x axis, each labelled at its end.

Knows only series of numbers; their meaning is in their names and the axes' labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from charts.axes import FONT_PX, Axis, chart, value_text, x_marks, y_marks
from charts.end_labels import colour_of, end_labels
from charts.svg import element, number, text_width

_WIDTH, _HEIGHT = 520.0, 264.0
_LEFT, _TOP, _BOTTOM = 52.0, 46.0, 40.0
_LEAST_RIGHT = 120.0
"""Least room for labels, px, so that charts below each other mostly have axes of equal width."""
_FEW_POINTS = 40
"""Up to this number every point gets a dot, so that a reader sees what was measured."""


@dataclass(frozen=True)
class Series:
    """A line, interrupted where y is None or not finite; missing values are not interpolated."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    dashed: bool = False
    band: Sequence[tuple[float, float]] = ()
    """Low and high around each y, drawn as an area."""

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.y)
        assert len(self.band) in (0, len(self.x))

    @property
    def points(self) -> list[tuple[float, float]]:
        return [point for piece in self.pieces() for point in piece]

    def pieces(self) -> Iterator[list[tuple[float, float]]]:
        """The stretches without a gap."""
        pairs = zip(self.x, self.y, strict=True)
        for known, piece in groupby(pairs, key=lambda pair: pair[1] is not None and math.isfinite(pair[1])):
            if known:
                yield [(x, y) for x, y in piece if y is not None]


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, percent: bool = False) -> str:
    """Returns a chart as an SVG element. Series without points are left out; at least one must have a point.

    Args: x_label: of whole numbers, such as epochs. percent: write y in per cent; the values stay fractions.
    """
    series = [one for one in series if one.points]
    assert series, "a chart needs a point"
    labels = {one.name: f"{one.name} {value_text(one.points[-1][1], percent=percent)}" for one in series}
    right = max(_LEAST_RIGHT, *(text_width(label, FONT_PX) + 18 for label in labels.values()))
    points = [point for one in series for point in one.points]
    heights = [y for _, y in points] + [edge for one in series for low_high in one.band for edge in low_high]
    x_axis = Axis.around([x for x, _ in points], _LEFT, _WIDTH - right, whole=True)
    y_axis = Axis.around(heights, _HEIGHT - _BOTTOM, _TOP, margin=0.06, percent=percent)
    ends = [(x_axis.px(x), y_axis.px(y)) for x, y in (one.points[-1] for one in series)]
    return chart(
        *y_marks(y_axis, left=x_axis.start_px, right=x_axis.end_px, label=y_label),
        *x_marks(x_axis, bottom=y_axis.start_px, label=x_label),
        *(part for index, one in enumerate(series) for part in _curve(one, x_axis, y_axis, colour_of(index))),
        *end_labels([labels[one.name] for one in series], ends, x_axis, y_axis),
        title=title,
        description=f"Last values: {'; '.join(labels.values())}.",
        width=_WIDTH,
        height=_HEIGHT,
    )


def _curve(series: Series, x_axis: Axis, y_axis: Axis, colour: str) -> Iterator[str]:
    def at(point: tuple[float, float]) -> str:
        return f"{number(x_axis.px(point[0]))} {number(y_axis.px(point[1]))}"

    if series.band:
        lows = [(x, low) for x, (low, _) in zip(series.x, series.band, strict=True)]
        highs = [(x, high) for x, (_, high) in zip(series.x, series.band, strict=True)]
        yield element("path", class_=f"{colour} band", d=f"M{'L'.join(map(at, lows + highs[::-1]))}Z")
    path = "".join(f"M{'L'.join(map(at, piece))}" for piece in series.pieces())
    yield element("path", class_=f"{colour} curve{' dashed' if series.dashed else ''}", d=path)
    if len(series.points) <= _FEW_POINTS:
        for x, y in series.points:
            yield element("circle", class_=f"{colour} dot", cx=x_axis.px(x), cy=y_axis.px(y), r=2)
