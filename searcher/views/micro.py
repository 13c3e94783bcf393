"""What a micro network is, part by part: its costs, and the graphs of its two cells.

Knows of no torch, pixels or SVG; the walks mirror the wiring in `nn/micro.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from searcher.arch.costs import Cost, conv_norm, linear, total
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
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification
from searcher.nn.complexity import Part, stem_part
from searcher.report.graph import Graph, GraphEdge, GraphNode, Stage

MicroSpec = Spec[MicroArchitecture, MicroSize, ImageClassification]


def parts(spec: MicroSpec) -> Iterator[Part]:
    size = spec.network
    task = spec.task
    channels = size.channels
    stem = stem_part(task.input_shape, 3 * channels, stride=size.stem_stride)
    yield stem
    height, width, _ = stem.shape
    widths = (3 * channels, 3 * channels)  # channels of the cell's two inputs
    for position in range(size.cells):
        kind = size.kind(position)
        cell = spec.architecture.cell(kind)
        in_area = height * width
        if kind == "reduction":
            channels *= 2
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        reduce_first_input = position > 0 and size.kind(position - 1) == "reduction"
        cost = _calibration(in_area, widths, channels, reduce_first_input=reduce_first_input)
        cost += _cell_cost(cell, kind, area=height * width, channels=channels)
        widths = (widths[1], channels * len(loose_ends(cell)))
        yield Part(f"cell {position}, {kind}", (height, width, widths[1]), cost)
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(widths[1], num_classes))


def _calibration(area: int, widths: tuple[int, int], channels: int, *, reduce_first_input: bool) -> Cost:
    """Brings both inputs of a cell to `channels`; a first input that is twice as large costs the same to halve."""
    first, second = widths
    cost = conv_norm(area, channels, channels)
    if first != channels or reduce_first_input:
        cost += conv_norm(area, first, channels)
    if second != channels:
        cost += conv_norm(area, second, channels)
    return cost


def _cell_cost(cell: Cell, kind: CellKind, *, area: int, channels: int) -> Cost:
    def stride(source: int) -> int:
        return 2 if kind == "reduction" and source < NUM_INPUTS else 1

    operations = (
        OPERATIONS[name](area, channels, stride=stride(source))
        for node in cell
        for source, name in zip(node.inputs, node.operations, strict=True)
    )
    # An unused input of a reduction cell is halved like an identity.
    leaves = (identity_cost(area, channels, stride=stride(leaf)) for leaf in loose_ends(cell))
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
