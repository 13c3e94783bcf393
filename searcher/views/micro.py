"""What a micro network is, part by part: its costs, and the graphs of its two cells.

Knows of no torch, pixels or SVG; the walks mirror the wiring in `nn/micro.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from searcher.arch.costs import Cost, Sides, area_of, conv_norm, factorized_reduction, halved, linear, total
from searcher.arch.micro import (
    CELL_KINDS,
    NUM_INPUTS,
    OPERATIONS,
    Cell,
    CellKind,
    MicroArchitecture,
    MicroSize,
    identity_cost,
    loose_ends,
)
from searcher.arch.spec import SpecOf
from searcher.arch.tasks import ImageClassification
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
    """Brings both inputs of a cell to `channels`, and a first input that is late, still twice as large, to half its
    size."""
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
    """sides: of the cell's inputs."""

    def stride(source: int) -> int:
        return 2 if kind == "reduction" and source < NUM_INPUTS else 1

    def sides_of(source: int) -> Sides:
        return sides if source < NUM_INPUTS or kind == "normal" else halved(sides)

    operations = (
        OPERATIONS[name](sides_of(source), channels, stride=stride(source))
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
    """Runs of equal cells, with the sizes that `nn/micro.py` gives them in the final form."""
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
    """Normal cells in a row are one stage; every reduction cell has a shape of its own."""
    if kind == "normal":
        yield length
    else:
        yield from itertools.repeat(1, length)
