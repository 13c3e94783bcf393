import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charts.axes import Axis
from charts.marks import Group, Mark, mark_chart

SVG = "{http://www.w3.org/2000/svg}"


def _chart(*groups: Group, x_ticks: tuple[float, ...] = ()) -> ET.Element:
    return ET.fromstring(mark_chart(groups, title="Latency", x_label="batch", y_label="ms", x_ticks=x_ticks))


def _of_class(root: ET.Element, tag: str, class_: str) -> list[ET.Element]:
    return [element for element in root.iter(SVG + tag) if class_ in (element.get("class") or "").split()]


def test_equal_ratios_are_equal_distances_on_an_axis_of_ratios() -> None:
    axis = Axis.logarithmic([1, 100], 0, 200)
    assert [axis.px(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert axis.labels() == ["1", "2", "5", "10", "20", "50", "100"]
    assert Axis.logarithmic([1, 64], 0, 200, ticks=[1, 8, 64]).labels() == ["1", "8", "64"]


@given(st.floats(1e-4, 1e6), st.floats(1e-4, 1e6))
@example(0.00010000000000000002, 0.0001)
def test_an_axis_of_ratios_holds_its_values_and_has_marks_within(a: float, b: float) -> None:
    axis = Axis.logarithmic([a, b], 0, 100, margin=0.05)
    assert 0 <= axis.px(min(a, b)) <= axis.px(max(a, b)) <= 100
    assert all(-1e-6 <= axis.px(tick) <= 100 + 1e-6 for tick in axis.ticks)
    assert len(axis.ticks) >= 2
    assert all(left < right for left, right in itertools.pairwise(axis.ticks))


def test_every_mark_is_a_dot_with_its_bars() -> None:
    marks = [Mark(1, 2, y_range=(1.5, 2.5)), Mark(8, 10, x_range=(7, 9), y_range=(9, 12))]
    root = _chart(Group("model", marks), x_ticks=(1, 8))
    assert len(_of_class(root, "circle", "dot")) == 2
    # One line that joins them and three bars.
    assert len(_of_class(root, "path", "curve")) == 4
    assert [text.text for text in _of_class(root, "text", "name")] == ["model"]


def test_names_of_groups_that_end_together_do_not_touch() -> None:
    groups = [Group(f"model {index}", [Mark(1, 1), Mark(2, 5 + index / 100)]) for index in range(4)]
    places = sorted(float(text.get("y") or 0) for text in _of_class(_chart(*groups), "text", "name"))
    assert all(below - above >= 14.9 for above, below in itertools.pairwise(places))


def test_long_names_are_cut_and_escaped() -> None:
    name = "runs/a-very-long-name-of-a-run-directory-with-many-words/<model>.onnx"
    (label,) = _of_class(_chart(Group(name, [Mark(1, 1)])), "text", "name")
    assert label.text is not None
    assert len(label.text) < len(name)
    assert label.text.endswith("model>.onnx")
