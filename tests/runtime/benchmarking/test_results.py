"""Which points meet a latency."""

from __future__ import annotations

import pytest

from runtime.benchmarking.results import Goal, Point
from runtime.benchmarking.samples import Series, Sitting
from runtime.benchmarking.scenarios import Load

GOAL = Goal(5.0, 0.99)


def _series(milliseconds: float, count: int, *, failure: str | None = None) -> Series:
    return Series("it", [Sitting(turns=[[int(milliseconds * 1e6)] * count])], failure=failure)


def _point(batch_size: int, series: Series) -> Point:
    return Point(batch_size, None, Load(), series, None)


@pytest.mark.parametrize(
    ("milliseconds", "count", "is_met"),
    [(4, 700, True), (6, 700, False), (4, 100, None), (6, 100, False), (4, 0, None)],
)
def test_a_latency_is_met_or_missed_or_nobody_knows(milliseconds: float, count: int, is_met: bool | None) -> None:
    assert GOAL.is_met_by(_series(milliseconds, count)) is is_met


@pytest.mark.parametrize(
    ("larger", "is_open"),
    [
        (_series(6, 700), False),
        (_series(4, 100), True),
        (_series(6, 100), False),
        (_series(4, 0, failure="out of memory"), False),
    ],
)
def test_of_what_is_larger_than_the_most_it_is_told_whether_it_misses(larger: Series, is_open: bool) -> None:
    small, most = _point(1, _series(4, 100)), _point(8, _series(4, 700))
    points = [small, most, _point(32, larger)]
    assert GOAL.most_of(points, by=lambda point: point.batch_size) == (most, is_open)
    assert GOAL.most_of(points[2:], by=lambda point: point.batch_size) == (None, is_open)
