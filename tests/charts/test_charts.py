import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charts.axes import Axis, round_numbers
from charts.curves import Series, line_chart
from charts.dots import Row, dot_chart

SVG = "{http://www.w3.org/2000/svg}"


def _chart(*series: Series, percent: bool = False) -> ET.Element:
    return ET.fromstring(line_chart(series, title="Loss", x_label="epoch", y_label="nats", percent=percent))


def _elements(root: ET.Element, tag: str, class_: str) -> list[ET.Element]:
    return [element for element in root.iter(SVG + tag) if class_ in (element.get("class") or "").split()]


def _words(root: ET.Element, class_: str) -> list[str]:
    return [element.text or "" for element in _elements(root, "text", class_)]


# --- axes -------------------------------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.booleans())
def test_ticks_are_evenly_spaced_round_numbers_within_the_axis(a: float, b: float, whole: bool) -> None:
    low, high = min(a, b), max(a, b)
    assume(high - low > 1e-3)
    marks = round_numbers(low, high, whole=whole)
    margin = 1e-6 * max(1, abs(low), abs(high))
    assert all(low - margin <= mark <= high + margin for mark in marks)
    steps = {float(f"{right - left:.3g}") for left, right in itertools.pairwise(marks)}
    assert len(steps) <= 1
    assert len(marks) <= 9
    if whole:
        assert all(mark == round(mark) for mark in marks)
    else:
        assert len(marks) >= 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 12, [2, 4, 6, 8, 10, 12]), (0.9, 0.92, [0.9, 0.905, 0.91, 0.915, 0.92])],
)
def test_ticks_of_usual_ranges(low: float, high: float, expected: list[float]) -> None:
    assert round_numbers(low, high) == pytest.approx(expected)


def test_tick_labels_have_the_decimals_that_tell_them_apart() -> None:
    assert Axis.around([0.9, 0.92], 0, 100, percent=True).labels() == ["90.0 %", "90.5 %", "91.0 %", "91.5 %", "92.0 %"]


def test_an_axis_of_one_value_has_room_on_both_sides() -> None:
    axis = Axis.around([0.5], 0, 100)
    assert axis.px(0.5) == pytest.approx(50)


@pytest.mark.parametrize("values", [(0.3, 0.1 + 0.2), (-0.1 - 0.2, -0.3), (0, 1e-17), (1e-17, 2e-17)])
def test_an_axis_of_values_that_hardly_differ_holds_them_between_ticks(values: tuple[float, ...]) -> None:
    axis = Axis.around(values, 0, 100)
    assert len(set(axis.labels())) >= 3
    assert all(0 <= axis.px(value) <= 100 for value in values)


# --- curves -----------------------------------------------------------------------------------------------------------


def test_a_curve_goes_through_its_points_and_names_its_last_value() -> None:
    root = _chart(Series("controller", [1, 2, 3], [0.2, 0.5, 0.75]), percent=True)
    (curve,) = _elements(root, "path", "curve")
    points = [tuple(map(float, point.split())) for point in (curve.get("d") or "")[1:].split("L")]
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in _elements(root, "circle", "dot")]
    assert points == dots
    assert points[0][1] > points[1][1] > points[2][1]
    assert _words(root, "name") == ["controller 75.0 %"]


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_a_value_that_is_not_there_breaks_the_line(hole: float | None) -> None:
    root = _chart(Series("loss", [1, 2, 3, 4, 5], [3.0, 2.5, hole, 2.0, 1.0]))
    (curve,) = _elements(root, "path", "curve")
    assert (curve.get("d") or "").count("M") == 2
    assert len(_elements(root, "circle", "dot")) == 4


def test_a_single_point_is_a_dot() -> None:
    root = _chart(Series("loss", [1], [2.3]))
    assert len(_elements(root, "circle", "dot")) == 1
    assert _words(root, "name") == ["loss 2.3"]


def test_labels_of_curves_that_end_together_do_not_touch() -> None:
    root = _chart(*(Series(f"series {index}", [1, 2], [index, 1.0]) for index in range(4)))
    heights = sorted(float(element.get("y", 0)) for element in _elements(root, "text", "name"))
    assert all(below - above >= 14.9 for above, below in itertools.pairwise(heights))


def test_a_band_lies_around_its_curve_and_within_the_chart() -> None:
    root = _chart(Series("loss", [1, 2], [1.0, 2.0], band=[(0.5, 1.5), (1.0, 4.0)]))
    (band,) = _elements(root, "path", "band")
    heights = [float(point.split()[1]) for point in re.split("[ML]", (band.get("d") or "").rstrip("Z"))[1:]]
    assert len(heights) == 4
    assert all(0 < height < float(root.get("height", 0)) for height in heights)


def test_series_without_a_point_are_left_out() -> None:
    assert _words(_chart(Series("loss", [1], [1.0]), Series("random", [], [])), "name") == ["loss 1"]


def test_names_are_escaped() -> None:
    assert _words(_chart(Series("a<b & c", [1], [1.0])), "name") == ["a<b & c 1"]


# --- dots -------------------------------------------------------------------------------------------------------------


def test_every_value_is_a_dot_and_the_chosen_one_has_a_ring() -> None:
    rows = [Row("sampled", [0.7, 0.7, 0.8]), Row("finalists", [0.75, 0.72], marked=1)]
    root = ET.fromstring(dot_chart(rows, title="Rewards", x_label="accuracy", percent=True))
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in _elements(root, "circle", "dot")]
    assert len(set(dots)) == 5
    (ring,) = _elements(root, "circle", "ring")
    finals = dots[3:]
    assert (float(ring.get("cx", 0)), float(ring.get("cy", 0))) == min(finals)


def test_many_equal_values_do_not_grow_out_of_the_chart() -> None:
    root = ET.fromstring(dot_chart([Row("sampled", [0.5] * 500)], title="Rewards", x_label="accuracy"))
    assert min(float(dot.get("cy", 0)) for dot in _elements(root, "circle", "dot")) > 14
    assert float(root.get("height", 0)) < 260
