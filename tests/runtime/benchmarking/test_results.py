"""Which points meet a latency."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.benchmarking.results import Goal, Point
from runtime.benchmarking.samples import Series, Sitting
from runtime.benchmarking.scenarios import Load

GOAL = Goal(5.0, 0.99)


def _series(milliseconds: float, count: int, *, failure: str | None = None) -> Series:
    return _series_of(np.full(count, milliseconds), failure=failure)


def _series_of(milliseconds: np.ndarray, *, failure: str | None = None) -> Series:
    return Series("it", [Sitting(turns=[(milliseconds * 1e6).astype(int).tolist()])], failure=failure)


def _point(batch_size: int, series: Series) -> Point:
    return Point(batch_size, None, Load(), series, None)


@pytest.mark.parametrize(
    ("milliseconds", "count", "is_met"),
    [(4, 700, True), (6, 700, False), (4, 100, None), (6, 100, False), (4, 0, None)],
)
def test_a_latency_is_met_or_missed_or_nobody_knows(milliseconds: float, count: int, is_met: bool | None) -> None:
    assert GOAL.is_met_by(_series(milliseconds, count)) is is_met


@pytest.mark.parametrize(("goal_ms", "is_met"), [(3.6, False), (3.98, None), (4.1, True)])
def test_a_goal_within_the_interval_is_neither_met_nor_missed(goal_ms: float, is_met: bool | None) -> None:
    milliseconds = np.random.default_rng(0).permutation(np.linspace(1, 4, 2000))  # p99: 3.97
    assert Goal(goal_ms).is_met_by(_series_of(milliseconds)) is is_met


@pytest.mark.parametrize(
    ("milliseconds", "is_met"),
    [
        (np.linspace(1, 4, 2000), None),
        (np.r_[[2.0] * 1400, [50.0] * 600], False),
        (np.r_[[2.0] * 1980, [50.0] * 20], None),
        # Were the calls independent, 2 % of 2,000 would clearly be more than 1 %.
        (np.r_[[2.0] * 1960, np.linspace(50, 60, 40)], None),
        (np.r_[[2.0] * 90, [50.0] * 10], False),
        (np.r_[[2.0] * 98, [50.0] * 2], None),
    ],
    ids=[
        "drift below it",
        "a burst of many",
        "a burst of few",
        "a burst of more",
        "few samples, many miss",
        "few samples, few miss",
    ],
)
def test_where_a_quantile_has_no_interval_it_counts_how_many_miss(
    milliseconds: np.ndarray, is_met: bool | None
) -> None:
    assert GOAL.is_met_by(_series_of(milliseconds)) is is_met


@pytest.mark.parametrize(
    ("larger", "doubt"),
    [
        (_series(6, 700), None),
        (_series(4, 100), "too few samples"),
        (_series(6, 100), None),
        (_series_of(np.linspace(1, 4, 2000)), "unsettled"),
        (_series(4, 0, failure="out of memory"), None),
    ],
)
def test_of_what_is_larger_than_the_most_it_is_told_whether_it_misses(larger: Series, doubt: str | None) -> None:
    small, most = _point(1, _series(4, 100)), _point(8, _series(4, 700))
    points = [small, most, _point(32, larger)]
    assert GOAL.most_of(points, by=lambda point: point.batch_size) == (most, doubt)
    assert GOAL.most_of(points[2:], by=lambda point: point.batch_size) == (None, doubt)


def test_what_is_larger_than_a_failure_is_not_up_to() -> None:
    points = [
        _point(1, _series(4, 700)),
        _point(8, _series(4, 0, failure="out of memory")),
        _point(32, _series(4, 700)),
    ]
    assert GOAL.most_of(points, by=lambda point: point.batch_size) == (points[0], None)


def test_what_is_larger_than_a_miss_is_not_up_to() -> None:
    points = [_point(16, _series(4, 700)), _point(4, _series(4, 700)), _point(8, _series(6, 700))]
    assert GOAL.most_of(points, by=lambda point: point.batch_size) == (points[1], None)
    assert GOAL.most_of([points[2], _point(32, _series(4, 100))], by=lambda point: point.batch_size) == (None, None)
