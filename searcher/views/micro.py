"""Describes a micro network part by part: its costs, the graphs of its two cells, and its fused blocks.

Knows nothing of torch, pixels or SVG; the loops mirror the wiring in `nn/micro.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from searcher.arch.costs import Cost, Sides, area_of, conv_norm, factorized_reduction, halved, linear, total
from searcher.arch.operations import CELL_COSTS, identity_cost
from searcher.arch.spaces.micro import (
    CELL_KINDS,
    NUM_INPUTS,
    SLOTS,
    Cell,
    CellKind,
    MicroArchitecture,
    MicroSize,
    MicroSpace,
    Node,
    loose_ends,
)
from searcher.arch.spec import SpecOf
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import CONCAT, HALVE, HEAD, PROJECT, SUM, Block, after, stem_blocks
from searcher.nn.complexity import Part, stem_part
from searcher.report.graph import Graph, GraphEdge, GraphNode, Stage

MicroSpec = SpecOf[MicroArchitecture, MicroSize, ImageClassification]


def parts(spec: MicroSpec) -> Iterator[Part]:
    size = spec.network
    task = spec.task
    channels = size.channels
    stem = stem_part(task.input_shape, 3 * channels, stride=size.stem_stride)
    yield stem
    sides = stem.shape[0], stem.shape[1]
    widths = (3 * channels, 3 * channels)  # channels of the cell's two inputs
    sides_before = sides  # of the first input, which lags one cell behind
    for position in range(size.cells):
        kind = size.kind(position)
        cell = spec.architecture.cell(kind)
        if kind == "reduction":
            channels *= 2
        is_late = position > 0 and size.kind(position - 1) == "reduction"
        cost = _calibration((sides_before, sides), widths, channels, is_late=is_late)
        cost += _cell_cost(cell, kind, sides, channels)
        widths = (widths[1], channels * len(loose_ends(cell)))
        sides_before, sides = sides, halved(sides) if kind == "reduction" else sides
        yield Part(f"cell {position}, {kind}", (*sides, widths[1]), cost)
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(widths[1], num_classes))


def _calibration(sides: tuple[Sides, Sides], widths: tuple[int, int], channels: int, *, is_late: bool) -> Cost:
    """The cost of bringing both inputs of a cell to `channels`, and of halving a late first input, which is still twice
    as large."""
    first, second = widths
    area = area_of(sides[1])
    cost = conv_norm(area, channels, channels)
    if is_late:
        cost += factorized_reduction(sides[0], first, channels)
    elif first != channels:
        cost += conv_norm(area, first, channels)
    if second != channels:
        cost += conv_norm(area, second, channels)
    return cost


def _cell_cost(cell: Cell, kind: CellKind, sides: Sides, channels: int) -> Cost:
    """sides: height and width of the cell's inputs."""

    def stride(source: int) -> int:
        return 2 if kind == "reduction" and source < NUM_INPUTS else 1

    def sides_of(source: int) -> Sides:
        return sides if source < NUM_INPUTS or kind == "normal" else halved(sides)

    operations = (
        CELL_COSTS[name](sides_of(source), channels, stride=stride(source))
        for node in cell
        for source, name in zip(node.inputs, node.operations, strict=True)
    )
    # An unused input of a reduction cell is halved like an identity.
    leaves = (identity_cost(sides_of(leaf), channels, stride=stride(leaf)) for leaf in loose_ends(cell))
    return total(operations) + total(leaves)


_INPUT_NAMES = ("prev-prev", "prev")
_INPUT_CAPTIONS = ("previous cell but one", "previous cell")
_CELL_CAPTIONS: dict[CellKind, str] = {
    "normal": "keeps the size of the map",
    "reduction": "halves the map: operations on its inputs have stride 2",
}


def graphs(spec: MicroSpec) -> tuple[Graph, ...]:
    return tuple(_cell(spec.architecture, kind) for kind in CELL_KINDS)


def _cell(architecture: MicroArchitecture, kind: CellKind) -> Graph:
    cell = architecture.cell(kind)
    names = [*_INPUT_NAMES, *(f"node {index}" for index in range(NUM_INPUTS, NUM_INPUTS + len(cell)))]
    inputs = [
        GraphNode(name, role="input", caption=caption)
        for name, caption in zip(_INPUT_NAMES, _INPUT_CAPTIONS, strict=True)
    ]
    nodes = [
        GraphNode(
            name,
            tuple(
                GraphEdge(names[source], operation)
                for source, operation in zip(node.inputs, node.operations, strict=True)
            ),
        )
        for name, node in zip(names[NUM_INPUTS:], cell, strict=True)
    ]
    leaves = tuple(GraphEdge(names[leaf]) for leaf in loose_ends(cell))
    output = GraphNode("output", leaves, role="output", join="concat", caption="loose ends, concatenated")
    return Graph(f"{kind} cell", _CELL_CAPTIONS[kind], (*inputs, *nodes, output))


def outline(spec: MicroSpec) -> tuple[Stage, ...]:
    """Runs of equal cells, with their sizes in the final form of `nn/micro.py`."""
    size = spec.network
    height, width = (math.ceil(side / size.stem_stride) for side in spec.task.input_shape[:2])
    stages = [Stage("stem", (height, width, 3 * size.channels))]
    channels = size.channels
    for kind, run in itertools.groupby(size.kind(position) for position in range(size.cells)):
        for count in _stretches(kind, len(list(run))):
            if kind == "reduction":
                channels *= 2
                height, width = math.ceil(height / 2), math.ceil(width / 2)
            shape = (height, width, channels * len(loose_ends(spec.architecture.cell(kind))))
            stages.append(Stage(kind, shape, count=count, width=channels, reduces=kind == "reduction"))
    return (*stages, Stage("classifier", (len(spec.task.classes),)))


def _stretches(kind: CellKind, length: int) -> Iterator[int]:
    """Yields the number of cells of each stage in a run: normal cells form one stage, each reduction cell its own."""
    if kind == "normal":
        yield length
    else:
        yield from itertools.repeat(1, length)


# --- latency ---------------------------------------------------------------------------------------------------------


def blocks(spec: MicroSpec) -> Iterator[Block]:
    """The fused blocks of the network, from its input to its output."""
    size = spec.network
    height, width, in_channels = spec.task.input_shape
    channels = size.channels
    yield from stem_blocks(in_channels, 3 * channels, height, width, stride=size.stem_stride)
    height, width = after(height, size.stem_stride), after(width, size.stem_stride)
    first = second = 3 * channels
    earlier = (height, width)  # the map of the cell's first input, which lags one cell behind
    for position in range(size.cells):
        kind = size.kind(position)
        reduces = kind == "reduction"
        cell = spec.architecture.cell(kind)
        if reduces:
            channels *= 2
        if position > 0 and size.kind(position - 1) == "reduction":
            yield Block(HALVE, first, channels, *earlier, 2)
        elif first != channels:
            yield Block(PROJECT, first, channels, height, width)
        if second != channels:
            yield Block(PROJECT, second, channels, height, width)
        yield Block(PROJECT, channels, channels, height, width)
        reduced = (after(height, 2), after(width, 2)) if reduces else (height, width)
        for node in cell:
            for source, operation in zip(node.inputs, node.operations, strict=True):
                strided = reduces and source < NUM_INPUTS
                map_size = (height, width) if strided or not reduces else reduced
                if operation != "identity":
                    yield Block(operation, channels, channels, *map_size, 2 if strided else 1)
                elif strided:
                    yield Block(HALVE, channels, channels, *map_size, 2)
            yield Block(SUM, channels, channels, *reduced)
        ends = loose_ends(cell)
        for end in ends:
            if reduces and end < NUM_INPUTS:
                yield Block(HALVE, channels, channels, height, width, 2)
        earlier, (height, width) = (height, width), reduced
        first, second = second, channels * len(ends)
        if len(ends) > 1:
            yield Block(CONCAT, channels, second, height, width)
    yield Block(HEAD, second, len(spec.task.classes), height, width)


def covering(space: MicroSpace) -> Iterator[MicroArchitecture]:
    """Yields architectures that together contain every block of any architecture of the space.

    A block depends on its operation, on whether it reads an input of the cell, and on the cells' loose ends.
    """
    last = NUM_INPUTS + space.num_nodes - 1
    for operation in space.operations:
        for source in (0, last - 1):
            nodes = [Node((min(source, at - 1),) * 2, (operation,) * 2) for at in range(NUM_INPUTS, last + 1)]
            yield MicroArchitecture(tuple(nodes), tuple(nodes))
    for count in range(1, last + 1):
        cell = _cell_reading(space, count)
        yield MicroArchitecture(cell, cell)


def _cell_reading(space: MicroSpace, count: int) -> Cell:
    """A cell whose nodes read the first `count` of its nodes and inputs, or as many as can be read."""
    unread = 0
    nodes = []
    for index in range(NUM_INPUTS, NUM_INPUTS + space.num_nodes):
        picks = [0, 0]
        for slot in SLOTS:
            if unread < min(count, index):
                picks[slot] = unread
                unread += 1
        nodes.append(Node((picks[0], picks[1]), (space.operations[0],) * 2))
    return tuple(nodes)


def reference(architecture: MicroArchitecture, space: MicroSpace) -> MicroArchitecture | None:
    """Returns None: no latency target names a published architecture of this space."""
    return None
