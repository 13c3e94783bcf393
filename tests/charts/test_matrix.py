import xml.etree.ElementTree as ET

import pytest

from charts.matrix import matrix_chart

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


def test_a_hundred_classes_still_fit() -> None:
    names = [f"class {index}" for index in range(100)]
    root = _chart([[int(row == column) for column in range(100)] for row in range(100)], names)
    assert float(root.get("width") or 0) < 1100
    assert len(list(root.iter(f"{SVG}rect"))) == 100
