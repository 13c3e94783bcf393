import xml.etree.ElementTree as ET

import pytest

from charts.axes import FONT_PX
from charts.matrix import matrix_chart
from charts.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"


def _chart(counts: list[list[int]], names: list[str]) -> ET.Element:
    return ET.fromstring(matrix_chart(counts, names, title="Confusion", row_label="is", column_label="said"))


def test_cells_hold_their_counts_and_empty_ones_nothing() -> None:
    root = _chart([[8, 2], [0, 1200]], ["cat", "dog"])
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"8", "2", "1,200"} <= set(words)
    assert "0" not in words
    assert words.count("cat") == words.count("dog") == 2


def test_a_cell_is_the_darker_the_larger_its_share_of_its_row() -> None:
    opacities = [
        float(rect.get("fill-opacity") or 0) for rect in _chart([[8, 2], [0, 9]], ["a", "b"]).iter(f"{SVG}rect")
    ]
    assert opacities == pytest.approx([0.54, 0.27, 0.6])


def test_the_picture_is_as_wide_as_its_subtitle() -> None:
    labels = ("what the picture shows", "what the model says")
    root = ET.fromstring(
        matrix_chart([[1, 0], [0, 1]], ["a", "b"], title="", row_label=labels[0], column_label=labels[1])
    )
    subtitle = next(text.text for text in root.iter(f"{SVG}text") if text.text and labels[0] in text.text)
    assert float(root.get("width") or 0) >= text_width(subtitle, FONT_PX)


def test_a_hundred_classes_still_fit() -> None:
    names = [f"class {index}" for index in range(100)]
    root = _chart([[int(row == column) for column in range(100)] for row in range(100)], names)
    assert float(root.get("width") or 0) < 1100
    assert len(list(root.iter(f"{SVG}rect"))) == 100
