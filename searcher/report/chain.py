"""Draws a chain of layers: cards below each other, and beside them their skips as a crossbar.

Each card that later cards skip from has a lane of its own, which runs down; a dot marks where it is read. The lane that
begins first is the outermost, so no lane is crossed on the way to another; only lines that enter a card cross lanes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from charts.svg import element, number, text, text_width
from foundation.text import shape_text
from searcher.report.chips import CHIP_HEIGHT, FONT_PX, chip
from searcher.report.graph import Graph, GraphNode
from searcher.report.layout import Box
from searcher.report.part import Part

_CARD_PADDING = 6.0
_CARD_HEIGHT = CHIP_HEIGHT + 2 * _CARD_PADDING
_NAME_GAP = 12.0
_GAP = 18.0
"""Between cards, px."""
_FIRST_LANE = 22.0
"""Distance of the first lane from the cards, px."""
_LANE_PITCH = 13.0
_ENTRY, _EXIT = 12.0, 26.0
"""Where skips enter a card, and where its own skips leave, on its right side, px from its top."""
_NOTE_HEIGHT = 22.0
DOT_RADIUS = 2.8


def draw_chain(graph: Graph, *, chip_width: float) -> Part:
    """The drawing of a graph that is a chain. All chips are `chip_width` px wide."""
    nodes = graph.nodes
    name_width = max(text_width(node.name, FONT_PX) for node in nodes)
    width = 2 * _CARD_PADDING + _CARD_PADDING + name_width + _NAME_GAP + chip_width
    boxes = _boxes(nodes, width)
    lanes = _lanes(nodes, width)
    right = max(lanes.values()) + _LANE_PITCH if lanes else width
    bottom = boxes[nodes[-1].name].bottom
    noted = [node for node in nodes if node.note]
    pieces = [
        *_skips(nodes, boxes, lanes),
        *_trunk(nodes, boxes),
        *(_note(node, boxes[node.name], right=right) for node in noted),
        *(_card(node, boxes[node.name], chip_width) for node in nodes),
    ]
    return Part(right, bottom, "".join(pieces))


def skips_of(node: GraphNode) -> tuple[str, ...]:
    """The sources that a node of a chain reads without an operation."""
    return tuple(edge.source for edge in node.edges if edge.operation is None)


def _boxes(nodes: Sequence[GraphNode], width: float) -> dict[str, Box]:
    """Cards from top to bottom, with room above cards that have a note."""
    boxes = {}
    top = 0.0
    for node in nodes:
        if node.note:
            top += _NOTE_HEIGHT + _GAP
        boxes[node.name] = Box(0.0, top, width, _CARD_HEIGHT)
        top += _CARD_HEIGHT + _GAP
    return boxes


def _lanes(nodes: Sequence[GraphNode], width: float) -> dict[str, float]:
    """The x of each lane: there is one for each node that is skipped from, the first node's outermost."""
    skipped = {source for node in nodes for source in skips_of(node)}
    sources = [node.name for node in reversed(nodes) if node.name in skipped]
    return {source: width + _FIRST_LANE + _LANE_PITCH * place for place, source in enumerate(sources)}


def _skips(nodes: Sequence[GraphNode], boxes: dict[str, Box], lanes: dict[str, float]) -> Iterator[str]:
    ends = {source: boxes[node.name].top + _ENTRY for node in nodes for source in skips_of(node)}
    for source, x in lanes.items():
        start = boxes[source]
        yield element(
            "path",
            class_="line",
            d=f"M{number(start.right)} {number(start.top + _EXIT)}H{number(x)}V{number(ends[source])}",
        )
    for node in nodes:
        sources = skips_of(node)
        if not sources:
            continue
        box = boxes[node.name]
        y = box.top + _ENTRY
        yield element(
            "path", class_="line", d=f"M{number(max(lanes[s] for s in sources))} {number(y)}H{number(box.right)}"
        )
        yield element("path", class_="tip", d=f"M{number(box.right)} {number(y)}l7 -3.5v7z")
        for source in sources:
            yield element("circle", class_="tip", cx=lanes[source], cy=y, r=DOT_RADIUS)


def _trunk(nodes: Sequence[GraphNode], boxes: dict[str, Box]) -> Iterator[str]:
    """Arrows from each card down to the next."""
    for above, below in itertools.pairwise(nodes):
        x, start, end = boxes[above.name].centre, boxes[above.name].bottom, boxes[below.name].top
        yield element("path", class_="line", d=f"M{number(x)} {number(start)}V{number(end)}")
        yield element("path", class_="tip", d=f"M{number(x)} {number(end)}l-3.5 -7h7z")


def _note(node: GraphNode, box: Box, *, right: float) -> str:
    """A card's note above it, and a line through all lanes."""
    top = box.top - _GAP - _NOTE_HEIGHT
    words = f"{node.note}: {shape_text(node.shape)}"
    return (
        element("path", class_="cut", d=f"M0 {number(top + _NOTE_HEIGHT / 2)}H{number(right)}")
        + element("rect", class_="panel", x=0, y=top, width=box.width, height=_NOTE_HEIGHT, rx=_NOTE_HEIGHT / 2)
        + text(words, box.centre, top + 15, "muted mid")
    )


def _card(node: GraphNode, box: Box, chip_width: float) -> str:
    class_ = "input" if node.role == "input" else "card"
    frame = element("rect", class_=class_, x=box.left, y=box.top, width=box.width, height=box.height, rx=7)
    baseline = box.top + _CARD_HEIGHT / 2 + 4
    name = text(node.name, box.left + 2 * _CARD_PADDING, baseline, "b")
    place = Box(box.right - _CARD_PADDING - chip_width, box.top + _CARD_PADDING, chip_width, CHIP_HEIGHT)
    operation = next((edge.operation for edge in node.edges if edge.operation), None)
    if operation is None:
        return frame + name + text(shape_text(node.shape), place.centre, baseline, "muted mid")
    return frame + name + chip(operation, place)
