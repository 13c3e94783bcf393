import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charts.spacing import separated
from searcher.report.layout import Box, Curve, Item, Layout, lay_out

# --- spacing ----------------------------------------------------------------------------------------------------------

_POSITIONS = st.lists(st.floats(-1000, 1000), min_size=1, max_size=12)


@given(_POSITIONS, st.floats(0, 50))
def test_separated_keeps_order_and_gaps(wanted: list[float], gap: float) -> None:
    places = separated(wanted, [gap] * (len(wanted) - 1))
    assert all(right - left >= gap - 1e-6 for left, right in itertools.pairwise(places))


@given(_POSITIONS, st.floats(0, 50))
def test_separated_leaves_the_weighted_mean_where_it_was(wanted: list[float], gap: float) -> None:
    weights = [1.0 + index % 3 for index in range(len(wanted))]
    places = separated(wanted, [gap] * (len(wanted) - 1), weights)
    drift = sum(w * (place - aim) for w, place, aim in zip(weights, places, wanted, strict=True))
    assert drift == pytest.approx(0, abs=1e-6)


def test_separated_moves_nothing_that_has_room() -> None:
    assert separated([0, 20, 50], [10, 10]) == [0, 20, 50]


def test_separated_moves_two_that_touch_by_half_each() -> None:
    assert separated([10, 10], [6]) == [7, 13]


# --- layout -----------------------------------------------------------------------------------------------------------


def _item(key: str, sources: list[str], width: float = 60.0, height: float = 30.0) -> Item:
    entries = tuple(width * (place + 1) / (len(sources) + 1) for place in range(len(sources)))
    return Item(key, width, height, tuple(sources), entries)


@st.composite
def graphs(draw: st.DrawFn) -> list[Item]:
    """Random graphs of boxes of many sizes: cells, trees and chains with skips among them."""
    items: list[Item] = []
    for index in range(draw(st.integers(1, 14))):
        keys = [item.key for item in items]
        sources = draw(st.lists(st.sampled_from(keys), max_size=4)) if keys else []
        width, height = draw(st.sampled_from([(40.0, 20.0), (60.0, 60.0), (190.0, 44.0)]))
        items.append(_item(f"n{index}", sources, width, height))
    return items


def _overlap(first: Box, second: Box) -> bool:
    beside = first.right <= second.left + 1e-6 or second.right <= first.left + 1e-6
    return not (beside or first.bottom <= second.top + 1e-6 or second.bottom <= first.top + 1e-6)


def _points(curve: Curve) -> list[tuple[float, float]]:
    """The line as it is drawn: down, a cubic across the gap, down."""
    (x, y), (end_x, end_y), (top, bottom) = curve.start, curve.end, curve.bend
    middle = (top + bottom) / 2
    control = [(x, top), (x, middle), (end_x, middle), (end_x, bottom)]
    weights = [
        ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3) for t in (step / 20 for step in range(21))
    ]
    across = [
        (
            sum(w * px for w, (px, _) in zip(row, control, strict=True)),
            sum(w * py for w, (_, py) in zip(row, control, strict=True)),
        )
        for row in weights
    ]
    return [(x, y), (x, (y + top) / 2), *across, (end_x, (bottom + end_y) / 2), (end_x, end_y)]


def _crossings(layout: Layout) -> int:
    curves = [curve for found in layout.curves.values() for curve in found]
    return sum(
        (a.start[0] - b.start[0]) * (a.end[0] - b.end[0]) < -1e-6
        for a, b in itertools.combinations(curves, 2)
        if a.bend == b.bend
    )


@settings(max_examples=60)
@given(graphs(), st.integers(1, 4))
def test_boxes_do_not_overlap_and_lie_within_the_layout(items: list[Item], max_per_rank: int) -> None:
    layout = lay_out(items, max_per_rank=max_per_rank)
    assert not any(_overlap(a, b) for a, b in itertools.combinations(layout.boxes.values(), 2))
    for box in layout.boxes.values():
        assert box.left >= -1e-6
        assert box.right <= layout.width + 1e-6
        assert box.top >= -1e-6
        assert box.bottom <= layout.height + 1e-6


@settings(max_examples=60)
@given(graphs(), st.integers(1, 4))
def test_no_line_passes_through_a_box(items: list[Item], max_per_rank: int) -> None:
    layout = lay_out(items, max_per_rank=max_per_rank)
    points = [point for curves in layout.curves.values() for curve in curves for point in _points(curve)]
    for box in layout.boxes.values():
        inside = [
            (x, y)
            for x, y in points
            if box.left + 1e-6 < x < box.right - 1e-6 and box.top + 1e-6 < y < box.bottom - 1e-6
        ]
        assert inside == []


@settings(max_examples=60)
@given(graphs(), st.integers(1, 4))
def test_every_entry_of_every_box_gets_the_line_it_waits_for(items: list[Item], max_per_rank: int) -> None:
    layout = lay_out(items, max_per_rank=max_per_rank)
    for item in items:
        box = layout.boxes[item.key]
        arrivals = {
            (key, round(curve.end[0] - box.left, 3))
            for key, curves in layout.curves.items()
            for curve in curves
            if curve.enters and curve.end[1] == box.top and box.left < curve.end[0] < box.right
        }
        waiting = {
            (item.sources[index], round(entry, 3))
            for entry, index in zip(item.entries, layout.entry_order[item.key], strict=True)
        }
        assert arrivals == waiting


def test_a_tree_has_no_crossings() -> None:
    parents = [None, 0, 0, 1, 2, 1, 2, 3, 4, 5]
    items = [_item(str(i), [] if parent is None else [str(parent)]) for i, parent in enumerate(parents)]
    assert _crossings(lay_out(items, max_per_rank=8)) == 0


def test_a_chain_of_twelve_layers_with_skips_stands_in_one_column() -> None:
    items = [_item("0", [])]
    items += [_item(str(i), [str(i - 1), *([str(i - 3)] if i % 3 == 0 else [])]) for i in range(1, 12)]
    layout = lay_out(items, max_per_rank=3)
    tops = [layout.boxes[str(i)].top for i in range(12)]
    assert tops == sorted(set(tops))
    assert layout.width < 60 + 2 * 40


def test_two_readers_of_the_same_two_boxes_cross_once() -> None:
    items = [_item("a", []), _item("b", []), _item("c", ["a", "b"]), _item("d", ["b", "a"])]
    assert _crossings(lay_out(items, max_per_rank=2)) == 1


def test_a_rank_holds_no_more_boxes_than_it_may() -> None:
    items = [_item("root", []), *(_item(str(i), ["root"]) for i in range(7))]
    tops = [box.top for box in lay_out(items, max_per_rank=3).boxes.values()]
    assert max(tops.count(top) for top in tops) == 3
