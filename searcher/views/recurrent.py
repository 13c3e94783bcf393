"""Describes a recurrent network part by part: its costs, and the graph of its cell.

Knows nothing of torch, pixels or SVG; the loops mirror the wiring in `nn/recurrent.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from searcher.arch.costs import Cost, linear, total
from searcher.arch.spaces.recurrent import STATE, RecurrentArchitecture, RecurrentSize
from searcher.arch.spec import SpecOf
from searcher.arch.tasks import LanguageModelling
from searcher.nn.complexity import Part
from searcher.report.graph import Graph, GraphEdge, GraphNode, Stage

RecurrentSpec = SpecOf[RecurrentArchitecture, RecurrentSize, LanguageModelling]


def parts(spec: RecurrentSpec) -> Iterator[Part]:
    size = spec.network
    task = spec.task
    hidden, vocabulary = size.hidden_size, task.vocabulary_size
    gate_and_candidate = linear(hidden, 2 * hidden)
    yield Part("embedding", (hidden,), Cost(parameters=vocabulary * hidden))
    for number, node in enumerate(spec.architecture.nodes, start=1):
        # The first node also reads the token, through a second matrix.
        num_matrices = 2 if node.previous == STATE else 1
        yield Part(f"node {number}, {node.activation}", (hidden,), total([gate_and_candidate] * num_matrices))
    # It shares the embedding's weights.
    yield Part("softmax", (vocabulary,), replace(linear(hidden, vocabulary), parameters=0))


_CELL_INPUT = "token, state"


def graphs(spec: RecurrentSpec) -> tuple[Graph, ...]:
    architecture = spec.architecture
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


def outline(spec: RecurrentSpec) -> tuple[Stage, ...]:
    size = spec.network
    task = spec.task
    state = (size.hidden_size,)
    return (Stage("embedding", state), Stage("cell", state), Stage("softmax", (task.vocabulary_size,)))
