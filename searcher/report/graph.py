"""An architecture as graphs to be shown: what reads what through which operation, and the network around it.

The one description behind the drawing and the text. Each space says here how its architectures look as graphs; nothing
here knows of pixels, SVG or torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from searcher.arch.macro import MacroArchitecture, MacroSize, reduction_layers
from searcher.arch.micro import CELL_KINDS, NUM_INPUTS, CellKind, MicroArchitecture, MicroSize, loose_ends
from searcher.arch.recurrent import STATE, RecurrentArchitecture, RecurrentSize
from searcher.arch.spec import Spec
from searcher.arch.stages import StagesArchitecture, stage_stride
from searcher.arch.tasks import LanguageModelling

Role = Literal["input", "node", "output"]
Join = Literal["sum", "concat", "mean"]


@dataclass(frozen=True)
class GraphEdge:
    """What a node reads, and the operation it applies to it; without one, it takes it as it is."""

    source: str
    operation: str | None = None


@dataclass(frozen=True)
class GraphNode:
    """Joins what its edges bring; an `input` has none."""

    name: str
    """Unique in its graph."""
    edges: tuple[GraphEdge, ...] = ()
    role: Role = "node"
    join: Join = "sum"
    caption: str = ""
    """A few words on what it is, where the name does not say it."""
    shape: tuple[int, ...] = ()
    """Of its output: height, width, channels. Empty where it is different every time the graph is repeated."""
    note: str = ""
    """Said above it in a chain, with its shape: what begins with it."""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after all it reads."""

    title: str
    caption: str
    nodes: tuple[GraphNode, ...]
    is_chain: bool = False
    """Whether every node applies an operation to the one before it; all else it reads are skips."""


@dataclass(frozen=True)
class Stage:
    """A stretch of the network: `count` equal parts one after another, each with an output of `shape`."""

    name: str
    shape: tuple[int, ...]
    """Height, width, channels; or the number of features alone."""
    count: int = 1
    width: int | None = None
    """Channels of the operations inside, where there are some."""
    reduces: bool = False
    """Whether it halves the map."""

    @property
    def title(self) -> str:
        return f"{self.count} × {self.name}" if self.count > 1 else self.name


def graphs_of(spec: Spec) -> tuple[Graph, ...]:
    """The architecture's graphs: both cells of micro, the layers of macro and of stages, the cell of recurrent."""
    return _GRAPHS[spec.space](spec)


def outline_of(spec: Spec) -> tuple[Stage, ...]:
    """The whole network from its input to its output."""
    return _OUTLINES[spec.space](spec)


# --- micro ------------------------------------------------------------------------------------------------------------

_INPUT_NAMES = ("prev-prev", "prev")
_INPUT_CAPTIONS = ("previous cell but one", "previous cell")
_CELL_CAPTIONS: dict[CellKind, str] = {
    "normal": "keeps the size of the map",
    "reduction": "halves the map: operations on its inputs have stride 2",
}


def _micro_graphs(spec: Spec) -> tuple[Graph, ...]:
    return tuple(_micro_cell(spec.architecture, kind) for kind in CELL_KINDS)


def _micro_cell(architecture: MicroArchitecture, kind: CellKind) -> Graph:
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


def _micro_outline(spec: Spec) -> tuple[Stage, ...]:
    """Runs of equal cells, with the sizes that `nn/micro.py` gives them in the final form."""
    size: MicroSize = spec.network
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


# --- macro ------------------------------------------------------------------------------------------------------------


def _macro_graphs(spec: Spec) -> tuple[Graph, ...]:
    architecture: MacroArchitecture = spec.architecture
    join: Join = "concat" if spec.network.skip_merge == "concat" else "sum"
    first, second = reduction_layers(len(architecture.layers))
    shapes = _macro_shapes(spec)
    names = ["stem", *(f"layer {index}" for index in range(1, len(shapes)))]
    stem = GraphNode("stem", role="input", caption="first convolution", shape=shapes[0])
    notes = {first + 1: "all halved", second + 1: "all halved"}
    layers = [
        GraphNode(
            name,
            (GraphEdge(before, layer.operation), *(GraphEdge(names[tensor]) for tensor in layer.skips)),
            join=join if layer.skips else "sum",
            shape=shape,
            note=notes.get(index, ""),
        )
        for index, (before, name, layer, shape) in enumerate(
            zip(names, names[1:], architecture.layers, shapes[1:], strict=False), start=1
        )
    ]
    joined = "concatenated with" if join == "concat" else "added to"
    caption = f"skips are {joined} an operation's result; all maps are halved after layers {first} and {second}"
    return (Graph("layers", caption, (stem, *layers), is_chain=True),)


def _macro_outline(spec: Spec) -> tuple[Stage, ...]:
    """Runs of layers between the reductions, with the sizes that `nn/macro.py` gives them."""
    shapes = _macro_shapes(spec)
    stages = [Stage("stem", shapes[0])]
    start = 1
    for stop in (*reduction_layers(len(shapes) - 1), len(shapes) - 1):
        shape = shapes[start]
        if start > 1:
            stages.append(Stage("reduction", shape, reduces=True))
        stages.append(Stage("layer", shape, count=stop - start + 1, width=shape[-1]))
        start = stop + 1
    return (*stages, Stage("classifier", (len(spec.task.classes),)))


def _macro_shapes(spec: Spec) -> tuple[tuple[int, ...], ...]:
    """Of the stem's output and of every layer's: height, width, channels."""
    size: MacroSize = spec.network
    height, width = (math.ceil(side / size.stem_stride) for side in spec.task.input_shape[:2])
    channels = size.channels
    shapes = [(height, width, channels)]
    num_layers = len(spec.architecture.layers)
    for layer in range(1, num_layers + 1):
        shapes.append((height, width, channels))
        if layer in reduction_layers(num_layers):
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            channels *= 2 if size.double_channels else 1
    return tuple(shapes)


# --- stages -----------------------------------------------------------------------------------------------------------


def _stages_graphs(spec: Spec) -> tuple[Graph, ...]:
    architecture: StagesArchitecture = spec.architecture
    stem_shape, *shapes = _stages_shapes(spec)
    nodes = [GraphNode("stem", role="input", caption="first convolution", shape=stem_shape)]
    for number, (stage, shape) in enumerate(zip(architecture.stages, shapes, strict=True), start=1):
        for position, operation in enumerate(stage.layers, start=1):
            edges = (GraphEdge(nodes[-1].name, operation),)
            note = f"stage {number}" if position == 1 else ""
            nodes.append(GraphNode(f"layer {number}.{position}", edges, shape=shape, note=note))
    caption = "a layer adds its input to its result where both have one shape; a residual one always does"
    return (Graph("layers", caption, tuple(nodes), is_chain=True),)


def _stages_outline(spec: Spec) -> tuple[Stage, ...]:
    stem_shape, *shapes = _stages_shapes(spec)
    stages = [
        Stage(f"stage {number}", shape, width=shape[-1], reduces=stage_stride(number - 1) > 1)
        for number, shape in enumerate(shapes, start=1)
    ]
    return (Stage("stem", stem_shape), *stages, Stage("classifier", (len(spec.task.classes),)))


def _stages_shapes(spec: Spec) -> tuple[tuple[int, ...], ...]:
    """Of the stem's output and of every stage's: height, width, channels."""
    architecture: StagesArchitecture = spec.architecture
    height, width = (math.ceil(side / architecture.stem.stride) for side in spec.task.input_shape[:2])
    shapes = [(height, width, architecture.stem.channels)]
    for number, stage in enumerate(architecture.stages):
        height, width = (math.ceil(side / stage_stride(number)) for side in (height, width))
        shapes.append((height, width, stage.channels))
    return tuple(shapes)


# --- recurrent --------------------------------------------------------------------------------------------------------

_CELL_INPUT = "token, state"


def _recurrent_graphs(spec: Spec) -> tuple[Graph, ...]:
    architecture: RecurrentArchitecture = spec.architecture
    names = [_CELL_INPUT, *(f"node {number}" for number in range(1, len(architecture.nodes) + 1))]
    source = GraphNode(names[STATE], role="input", caption="embedding and the step before")
    nodes = [
        GraphNode(name, (GraphEdge(names[node.previous], node.activation),))
        for name, node in zip(names[1:], architecture.nodes, strict=True)
    ]
    ends = tuple(GraphEdge(names[number]) for number in architecture.averaged)
    which = "loose ends" if architecture.output == "loose_ends" else "all nodes but the first"
    output = GraphNode("output", ends, role="output", join="mean", caption=f"the new state: mean of {which}")
    return (Graph("cell", "a gate mixes what a node reads with an activation of it", (source, *nodes, output)),)


def _recurrent_outline(spec: Spec) -> tuple[Stage, ...]:
    size: RecurrentSize = spec.network
    task: LanguageModelling = spec.task
    state = (size.hidden_size,)
    return (Stage("embedding", state), Stage("cell", state), Stage("softmax", (task.vocabulary_size,)))


_GRAPHS: dict[str, Callable[[Spec], tuple[Graph, ...]]] = {
    "micro": _micro_graphs,
    "macro": _macro_graphs,
    "stages": _stages_graphs,
    "recurrent": _recurrent_graphs,
}
_OUTLINES: dict[str, Callable[[Spec], tuple[Stage, ...]]] = {
    "micro": _micro_outline,
    "macro": _macro_outline,
    "stages": _stages_outline,
    "recurrent": _recurrent_outline,
}
