"""A spec as an SVG drawing: the network from stem to classifier, and the graphs of its architecture.

One self-contained document that follows the reader's light or dark setting, needs no font of its own, and has the same
bytes for the same spec.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from charts.svg import FONT, element, escaped, number, shortened, text, text_width
from foundation.text import shape_text
from searcher.arch.spec import Spec
from searcher.report.chain import DOT_RADIUS, draw_chain, skips_of
from searcher.report.chips import CHIP_HEIGHT, CHIP_PADDING, FONT_PX, chip, colour, family, family_rank, needed_width
from searcher.report.graph import Graph, GraphNode, Role, Stage, graphs_of, outline_of
from searcher.report.layout import Box, Curve, Item, Layout, lay_out
from searcher.report.part import Part
from searcher.report.text import describe_spec, headline, task_line

_MARGIN = 24.0
_PANEL_PADDING = 18.0
_PANEL_HEAD = 46.0
_CHIP_GAP = 6.0
_CARD_PADDING = 6.0
_CARD_FOOT = 24.0
_PLAIN_CARD_HEIGHT = 42.0
_STAGE_HEIGHT = 44.0
_STAGE_GAP = 22.0
_MAX_PER_RANK = 3
_WIDEST_ROW = 1240.0
"""Graphs stand side by side up to this width, px, and below each other beyond it."""

_STYLE = """
.arch{font:12px FONT}
.arch text{fill:#1f2328}.arch .muted{fill:#59636e}.arch .h1{font-size:17px;font-weight:600}
.arch .h2{font-size:14px;font-weight:600}.arch .b{font-weight:600}.arch .mid{text-anchor:middle}
.arch .paper{fill:#fff;stroke:#d1d9e0}.arch .panel{fill:#f6f8fa;stroke:#d1d9e0}
.arch .card{fill:#fff;stroke:#afb8c1}.arch .input{fill:#eaeef2;stroke:#818b98}
.arch .output{fill:#fff;stroke:#8250a0;stroke-width:1.6}
.arch .line{fill:none;stroke:#59636e;stroke-width:1.5}.arch .leaf{stroke:#8250a0}
.arch .cut{stroke:#818b98;stroke-dasharray:3 4}
.arch .halo{fill:none;stroke:#f6f8fa;stroke-width:5}
.arch .tip{fill:#59636e}.arch .tip.leaf{fill:#8250a0;stroke:none}
.arch .blue{fill:#d7e9f7;stroke:#0072b2}.arch .orange{fill:#fde6c8;stroke:#c96a00}
.arch .green{fill:#d3f0e5;stroke:#008a64}.arch .pink{fill:#f6deec;stroke:#b3578d}
.arch .violet{fill:#ece2f5;stroke:#7a4fa0}.arch .grey{fill:#e3e7eb;stroke:#59636e}
@media screen and (prefers-color-scheme:dark){
.arch text{fill:#e6edf3}.arch .muted{fill:#9da7b3}
.arch .paper{fill:#0d1117;stroke:#30363d}.arch .panel{fill:#151b23;stroke:#30363d}
.arch .card{fill:#0d1117;stroke:#59636e}.arch .input{fill:#262c36;stroke:#818b98}
.arch .output{fill:#0d1117;stroke:#c297e0}
.arch .line{stroke:#9da7b3}.arch .leaf{stroke:#c297e0}.arch .halo{stroke:#151b23}
.arch .tip{fill:#9da7b3}.arch .tip.leaf{fill:#c297e0}
.arch .blue{fill:#0c3553;stroke:#56b4e9}.arch .orange{fill:#4f2c06;stroke:#e69f00}
.arch .green{fill:#06402f;stroke:#2fc89b}.arch .pink{fill:#4b2239;stroke:#d98cb9}
.arch .violet{fill:#332047;stroke:#b993d6}.arch .grey{fill:#2b323b;stroke:#9da7b3}}
""".replace("FONT", FONT).replace("\n", "")


def draw_spec(spec: Spec) -> str:
    """The SVG document of a spec."""
    graphs = graphs_of(spec)
    parts = [_outline(outline_of(spec)), _panels(graphs), _legend(graphs)]
    width = max(part.width for part in parts) + 2 * _MARGIN
    title = shortened(headline(spec), 17, width - 2 * _MARGIN)
    placed = [
        text(title, _MARGIN, _MARGIN + 14, "h1"),
        text(task_line(spec), _MARGIN, _MARGIN + 34, "muted"),
    ]
    y = _MARGIN + 54
    for part in parts:
        placed.append(part.at(_MARGIN, y))
        y += part.height + _MARGIN
    return (
        element(
            "svg",
            element("title", escaped(headline(spec))),
            element("desc", escaped(describe_spec(spec))),
            element("style", _STYLE),
            element("rect", class_="paper", x=0.5, y=0.5, width=width - 1, height=y - 1, rx=10),
            *placed,
            xmlns="http://www.w3.org/2000/svg",
            class_="arch",
            role="img",
            viewBox=f"0 0 {number(width)} {number(y)}",
            width=width,
            height=y,
        )
        + "\n"
    )


# --- graphs -----------------------------------------------------------------------------------------------------------


def _panels(graphs: Sequence[Graph]) -> Part:
    """Graphs in frames of one height side by side, or, where that is too wide, of one width below each other."""
    # A card with a single chip is as wide as the chip, and must also hold the node's name.
    names = {node.name for graph in graphs for node in graph.nodes if _has_operations(node)}
    chip_width = max(needed_width(name) for name in _operations(graphs) | names)
    bodies = [
        draw_chain(graph, chip_width=chip_width) if graph.is_chain else _ranked(graph, chip_width) for graph in graphs
    ]
    sizes = [_panel_size(graph, body) for graph, body in zip(graphs, bodies, strict=True)]
    widths, heights = (list(sides) for sides in zip(*sizes, strict=True))
    row_width = sum(widths) + _MARGIN * (len(graphs) - 1)
    beside = row_width <= _WIDEST_ROW
    if beside:
        heights = [max(heights)] * len(graphs)
        corners = [(x, 0.0) for x in _starts(widths)]
    else:
        widths = [max(widths)] * len(graphs)
        corners = [(0.0, y) for y in _starts(heights)]
    markup = "".join(
        _panel(graph, body, width, height).at(*corner)
        for graph, body, width, height, corner in zip(graphs, bodies, widths, heights, corners, strict=True)
    )
    return Part(corners[-1][0] + widths[-1], corners[-1][1] + heights[-1], markup)


def _starts(sizes: Sequence[float]) -> list[float]:
    """The start of each of several sizes placed in a row, with a margin between them."""
    return [0.0, *itertools.accumulate(size + _MARGIN for size in sizes[:-1])]


def _panel_size(graph: Graph, body: Part) -> tuple[float, float]:
    inner = max(body.width, text_width(graph.title, 14), text_width(graph.caption, FONT_PX))
    return inner + 2 * _PANEL_PADDING, body.height + _PANEL_HEAD + 2 * _PANEL_PADDING


def _panel(graph: Graph, body: Part, width: float, height: float) -> Part:
    """A graph in its frame, under its title."""
    markup = "".join(
        [
            element("rect", class_="panel", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=8),
            text(graph.title[:1].upper() + graph.title[1:], _PANEL_PADDING, _PANEL_PADDING + 12, "h2"),
            text(graph.caption, _PANEL_PADDING, _PANEL_PADDING + 30, "muted"),
            body.at((width - body.width) / 2, _PANEL_PADDING + _PANEL_HEAD),
        ]
    )
    return Part(width, height, markup)


def _ranked(graph: Graph, chip_width: float) -> Part:
    """A graph's boxes in ranks, under the lines between them."""
    layout = lay_out([_item(node, chip_width) for node in graph.nodes], max_per_rank=_MAX_PER_RANK)
    cards = (_card(node, layout, chip_width) for node in graph.nodes)
    return Part(layout.width, layout.height, "".join([*_lines(graph, layout), *cards]))


def _item(node: GraphNode, chip_width: float) -> Item:
    """The box a node needs: a chip for each operation, or its name and caption."""
    num_edges = len(node.edges)
    sources = tuple(edge.source for edge in node.edges)
    if _has_operations(node):
        width = num_edges * chip_width + (num_edges - 1) * _CHIP_GAP + 2 * _CARD_PADDING
        entries = [_CARD_PADDING + i * (chip_width + _CHIP_GAP) + chip_width / 2 for i in range(num_edges)]
        return Item(node.name, width, _CARD_PADDING + CHIP_HEIGHT + _CARD_FOOT, sources, tuple(entries))
    width = max(text_width(node.name, FONT_PX), text_width(node.caption, FONT_PX)) + 2 * CHIP_PADDING
    entries = [width * (i + 1) / (num_edges + 1) for i in range(num_edges)]
    return Item(node.name, width, _PLAIN_CARD_HEIGHT, sources, tuple(entries))


def _card(node: GraphNode, layout: Layout, chip_width: float) -> str:
    box = layout.boxes[node.name]
    class_ = "card" if node.role == "node" else node.role
    frame = element("rect", class_=class_, x=box.left, y=box.top, width=box.width, height=box.height, rx=7)
    if not _has_operations(node):
        name = text(node.name, box.centre, box.top + 18, "b mid")
        return frame + name + text(node.caption, box.centre, box.top + 33, "muted mid")
    chips = [
        chip(node.edges[index].operation or "", Box(left, box.top + _CARD_PADDING, chip_width, CHIP_HEIGHT))
        for left, index in zip(
            (box.left + _CARD_PADDING + i * (chip_width + _CHIP_GAP) for i in itertools.count()),
            layout.entry_order[node.name],
            strict=False,
        )
    ]
    join = "+ " if len(node.edges) > 1 else ""
    return frame + "".join(chips) + text(f"{join}{node.name}", box.centre, box.bottom - 8, "b mid")


def _lines(graph: Graph, layout: Layout) -> Iterator[str]:
    """All lines that leave a box as one path, on a halo that separates it from the lines drawn before."""
    last = _sources(graph, "output") - _sources(graph, "node")
    for key, curves in layout.curves.items():
        if not curves:
            continue
        path = "".join(map(_curve, curves))
        leaf = " leaf" if key in last else ""
        yield element("path", class_="halo", d=path)
        yield element("path", class_=f"line{leaf}", d=path)
        tips = "".join(_tip(curve.end) for curve in curves if curve.enters)
        if tips:
            yield element("path", class_=f"tip{leaf}", d=tips)


def _sources(graph: Graph, role: Role) -> set[str]:
    """The sources that the nodes of a role read."""
    return {edge.source for node in graph.nodes if node.role == role for edge in node.edges}


def _curve(curve: Curve) -> str:
    (x, y), (end_x, end_y), bend = curve.start, curve.end, curve.bend
    through = [(x, sum(bend) / 2), (end_x, sum(bend) / 2), (end_x, bend[1])]
    points = " ".join(f"{number(px)} {number(py)}" for px, py in through)
    return f"M{number(x)} {number(y)}V{number(bend[0])}C{points}V{number(end_y)}"


def _tip(at: tuple[float, float]) -> str:
    x, y = at
    return f"M{number(x)} {number(y)}l-3.5 -7h7z"


# --- network ----------------------------------------------------------------------------------------------------------


def _outline(stages: Sequence[Stage]) -> Part:
    """The stages from left to right; a stage that halves the map narrows to the right."""
    x = 0.0
    pieces = []
    for stage in stages:
        name, size = stage.title, shape_text(stage.shape)
        width = max(text_width(name, FONT_PX), text_width(size, FONT_PX)) + 20
        if x:
            y = _STAGE_HEIGHT / 2
            pieces.append(element("path", class_="line", d=f"M{number(x - _STAGE_GAP)} {number(y)}h{_STAGE_GAP - 6}"))
            pieces.append(element("path", class_="tip", d=f"M{number(x)} {number(y)}l-7 -3.5v7z"))
        pieces.append(_stage_shape(stage, x, width))
        pieces.append(text(name, x + width / 2, 19, "b mid"))
        pieces.append(text(size, x + width / 2, 35, "muted mid"))
        x += width + _STAGE_GAP
    return Part(x - _STAGE_GAP, _STAGE_HEIGHT, "".join(pieces))


def _stage_shape(stage: Stage, x: float, width: float) -> str:
    if stage.reduces:
        corners = [(0.0, -5.0), (width, 5.0), (width, _STAGE_HEIGHT - 5), (0.0, _STAGE_HEIGHT + 5)]
        points = " ".join(f"{number(x + dx)},{number(dy)}" for dx, dy in corners)
        return element("polygon", class_="input", points=points)
    class_ = "card" if stage.width is not None else "panel"
    return element("rect", class_=class_, x=x, y=0, width=width, height=_STAGE_HEIGHT, rx=7)


# --- legend -----------------------------------------------------------------------------------------------------------


def _legend(graphs: Sequence[Graph]) -> Part:
    """The meaning of the colours and lines that occur."""
    x = 0.0
    pieces = []
    for name in dict.fromkeys(family(operation) for operation in sorted(_operations(graphs), key=family_rank)):
        pieces.append(element("rect", class_=colour(name), x=x, y=1, width=18, height=12, rx=3))
        pieces.append(text(name, x + 25, 11, "muted"))
        x += 25 + text_width(name, FONT_PX) + 22
    for class_, words in _line_kinds(graphs):
        pieces.append(element("path", class_=f"line {class_}".rstrip(), d=f"M{number(x)} 7h18"))
        if class_ == "skip":
            pieces.append(element("circle", class_="tip", cx=x + 9, cy=7, r=DOT_RADIUS))
        pieces.append(text(words, x + 25, 11, "muted"))
        x += 25 + text_width(words, FONT_PX) + 22
    return Part(x - 22, 14, "".join(pieces))


def _line_kinds(graphs: Sequence[Graph]) -> Iterator[tuple[str, str]]:
    """Class and meaning of each kind of line that occurs."""
    nodes = [node for graph in graphs for node in graph.nodes]
    yield "", "read by an operation"
    if any(node.role == "output" for node in nodes):
        yield "leaf", "loose end, to the output"
    if any(graph.is_chain for graph in graphs) and any(map(skips_of, nodes)):
        yield "skip", "skip, read where it has a dot"


def _operations(graphs: Sequence[Graph]) -> set[str]:
    return {edge.operation for graph in graphs for node in graph.nodes for edge in node.edges if edge.operation}


def _has_operations(node: GraphNode) -> bool:
    return any(edge.operation for edge in node.edges)
