import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charts.svg import text_width
from searcher.arch.spec import Spec
from searcher.report.chips import chip, colour, family
from searcher.report.drawing import draw_spec
from searcher.report.layout import Box
from tests.searcher.report.test_graph import (
    macro_specs,
    make_spec,
    published_macro_spec,
    published_spec,
    recurrent_specs,
    specs,
    stages_specs,
)

SVG = "{http://www.w3.org/2000/svg}"
COLOURS = ("blue", "orange", "green", "pink", "violet", "grey")
CARDS = ("card", "input", "output")

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _placed(element: ET.Element, x: float = 0, y: float = 0) -> Iterator[tuple[ET.Element, float, float]]:
    """Every element with the translation it stands under."""
    if (transform := element.get("transform")) is not None:
        dx, dy = transform.removeprefix("translate(").removesuffix(")").split()
        x, y = x + float(dx), y + float(dy)
    yield element, x, y
    for child in element:
        yield from _placed(child, x, y)


def _rectangles(root: ET.Element, classes: tuple[str, ...]) -> list[Rectangle]:
    found = []
    for element, x, y in _placed(root):
        if element.tag == f"{SVG}rect" and element.get("class") in classes:
            left, top = x + float(element.get("x", 0)), y + float(element.get("y", 0))
            found.append((left, top, left + float(element.get("width", 0)), top + float(element.get("height", 0))))
    return found


def _labels(root: ET.Element) -> list[tuple[str, Rectangle]]:
    """All words with an upper estimate of the room they take."""
    found = []
    for element, x, y in _placed(root):
        if element.tag == f"{SVG}text":
            words, classes = element.text or "", (element.get("class") or "").split()
            width = text_width(words, 17 if "h1" in classes else 14 if "h2" in classes else 12)
            left = x + float(element.get("x", 0)) - (width / 2 if "mid" in classes else 0)
            base = y + float(element.get("y", 0))
            found.append((words, (left, base - 9, left + width, base + 2)))
    return found


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    slack = 0.2  # coordinates are written to a tenth of a pixel
    return a[0] < b[2] - slack and b[0] < a[2] - slack and a[1] < b[3] - slack and b[1] < a[3] - slack


def _contains(outer: Rectangle, inner: Rectangle) -> bool:
    return outer[0] <= inner[0] + 0.2 and outer[1] <= inner[1] and inner[2] <= outer[2] + 0.2 and inner[3] <= outer[3]


@settings(max_examples=40)
@given(specs())
def test_every_node_and_operation_appears(spec: Spec) -> None:
    words = [words for words, _ in _labels(ET.fromstring(draw_spec(spec)))]
    for cell in (spec.architecture.normal, spec.architecture.reduction):
        for index in range(2, 2 + len(cell)):
            assert words.count(f"+ node {index}") == 2
    chosen = [
        operation.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5")
        for cell in (spec.architecture.normal, spec.architecture.reduction)
        for node in cell
        for operation in node.operations
    ]
    legend = ["identity"] if "identity" in chosen else []
    operations = [w for w in words if w == "identity" or w.endswith(("3×3", "5×5"))]
    assert sorted(operations) == sorted(chosen + legend)


@settings(max_examples=40)
@given(stages_specs())
def test_every_layer_and_operation_of_a_stages_network_appears(spec: Spec) -> None:
    words = [words for words, _ in _labels(ET.fromstring(draw_spec(spec)))]
    for number, stage in enumerate(spec.architecture.stages, start=1):
        assert sum(word.startswith(f"stage {number}: ") for word in words) == 1
        assert all(f"layer {number}.{position}" in words for position in range(1, len(stage.layers) + 1))
    chosen = [
        name.replace("_e", ", ×").replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5")
        for stage in spec.architecture.stages
        for name in stage.layers
    ]
    assert sorted(word for word in words if "3×3" in word or "5×5" in word) == sorted(chosen)
    families = {name.partition("_")[0] for stage in spec.architecture.stages for name in stage.layers}
    assert {word for word in words if word in ("residual", "fused", "inverted")} == families


@settings(max_examples=40)
@given(macro_specs())
def test_every_layer_operation_and_skip_of_a_macro_network_appears(spec: Spec) -> None:
    root = ET.fromstring(draw_spec(spec))
    words = [words for words, _ in _labels(root)]
    layers = spec.architecture.layers
    assert all(f"layer {index}" in words for index in range(1, len(layers) + 1))
    chosen = [layer.operation.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5") for layer in layers]
    assert sorted(w for w in words if w.endswith(("3×3", "5×5"))) == sorted(chosen)
    num_skips = sum(len(layer.skips) for layer in layers)
    in_legend = 1 if num_skips else 0
    assert len(root.findall(f".//{SVG}circle")) == num_skips + in_legend


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("sep_conv_3x3", "convolution"),
        ("fused_3x3_e2", "fused"),
        ("relu", "activation"),
        ("ghost_5x5_e2", "ghost"),
        ("channel_shuffle", "channel shuffle"),
    ],
)
def test_an_operation_has_its_familys_colour_also_where_the_family_is_new(operation: str, expected: str) -> None:
    assert family(operation) == expected
    drawn = chip(operation, Box(0, 0, 9, 9))
    assert f'class="{colour(expected)}"' in drawn
    assert f".arch .{colour(expected)}{{" in draw_spec(published_spec())


@settings(max_examples=40)
@given(recurrent_specs())
def test_what_only_the_output_reads_has_the_colour_of_a_loose_end(spec: Spec) -> None:
    root = ET.fromstring(draw_spec(spec))
    num_paths = len([path for path in root.iter(f"{SVG}path") if path.get("class") == "line leaf"])
    read = {node.previous for node in spec.architecture.nodes}
    in_legend = 1
    assert num_paths == len(set(spec.architecture.averaged) - read) + in_legend


def test_every_tensor_skipped_from_has_a_lane_and_the_first_to_begin_lies_farthest_out() -> None:
    spec = published_macro_spec()
    paths = [path.get("d") or "" for path in ET.fromstring(draw_spec(spec)).iter(f"{SVG}path")]
    lanes = [re.fullmatch(r"M[\d.]+ ([\d.]+)H([\d.]+)V[\d.]+", path) for path in paths]
    starts = sorted((float(lane[1]), float(lane[2])) for lane in lanes if lane)
    assert len(starts) == len({tensor for layer in spec.architecture.layers for tensor in layer.skips})
    assert all(x > next_x for (_, x), (_, next_x) in itertools.pairwise(starts))


@settings(max_examples=40)
@given(st.one_of(specs(), macro_specs(), stages_specs(), recurrent_specs()))
def test_boxes_and_labels_do_not_overlap(spec: Spec) -> None:
    root = ET.fromstring(draw_spec(spec))
    cards, chips = _rectangles(root, CARDS), _rectangles(root, COLOURS)
    assert not any(_overlap(a, b) for a, b in itertools.combinations(cards, 2))
    assert not any(_overlap(a, b) for a, b in itertools.combinations(chips, 2))
    labels = _labels(root)
    touching = [(a, b) for (a, ra), (b, rb) in itertools.combinations(labels, 2) if _overlap(ra, rb)]
    assert touching == []


@settings(max_examples=40)
@given(st.one_of(specs(), macro_specs(), stages_specs(), recurrent_specs()))
def test_a_label_stays_inside_the_box_it_stands_in(spec: Spec) -> None:
    root = ET.fromstring(draw_spec(spec))
    labels = _labels(root)
    for box in _rectangles(root, (*CARDS, *COLOURS)):
        for words, room in labels:
            assert not _overlap(box, room) or _contains(box, room), words


@settings(max_examples=40)
@given(st.one_of(specs(), macro_specs(), stages_specs(), recurrent_specs()))
def test_nothing_reaches_over_the_edge(spec: Spec) -> None:
    root = ET.fromstring(draw_spec(spec))
    paper = (0.0, 0.0, float(root.get("width", 0)), float(root.get("height", 0)))
    for rectangle in [*_rectangles(root, ("panel", *CARDS)), *(room for _, room in _labels(root))]:
        assert _contains(paper, rectangle)


@settings(max_examples=20)
@given(st.one_of(specs(), macro_specs(), stages_specs(), recurrent_specs()))
def test_equal_specs_give_equal_bytes_and_few_of_them(spec: Spec) -> None:
    drawing = draw_spec(spec)
    assert drawing == draw_spec(replace(spec))
    for published in (published_spec(), published_macro_spec()):
        assert len(draw_spec(published).encode()) < 30_000


def test_a_drawing_names_and_describes_itself() -> None:
    root = ET.fromstring(draw_spec(published_spec()))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "micro network for cifar10"
    assert "node 4    = identity(prev-prev) + sep_conv_5x5(prev)" in (root.findtext(f"{SVG}desc") or "")


def test_a_data_set_s_name_cannot_break_out_of_the_markup() -> None:
    spec = published_spec()
    hostile = '</title><script>"&\x00'
    root = ET.fromstring(draw_spec(make_spec(spec.architecture, spec.network, dataset=hostile)))
    assert root.findtext(f"{SVG}title") == 'micro network for </title><script>"&�'
    assert root.find(f".//{SVG}script") is None


def test_a_long_path_is_cut_to_the_width_of_the_drawing() -> None:
    spec = published_spec()
    root = ET.fromstring(
        draw_spec(make_spec(spec.architecture, spec.network, dataset="/data/" + "long/" * 60 + "x.h5"))
    )
    title, room = _labels(root)[0]
    assert "…" in title
    assert title.endswith("x.h5")
    assert room[2] <= float(root.get("width", 0))
