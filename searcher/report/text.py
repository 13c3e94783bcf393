"""An architecture as text for a terminal: each node as a formula, and the outline of the network."""

from __future__ import annotations

from collections.abc import Iterator

from datasets.tokens import UNITS
from foundation.text import shape_text
from searcher.arch.spec import Spec
from searcher.arch.tasks import LanguageModelling
from searcher.report.graph import Graph, GraphEdge, GraphNode, graphs_of, outline_of


def headline(spec: Spec) -> str:
    """A spec in a few words: `micro network for fashion-mnist-mini`."""
    return f"{spec.space} network for {spec.task.dataset}"


def task_line(spec: Spec) -> str:
    """`images 28×28×1 → 10 classes`, `words → the next of 10,000`."""
    task = spec.task
    if isinstance(task, LanguageModelling):
        return f"{UNITS[task.tokens]} → the next of {task.vocabulary_size:,}"
    return f"images {shape_text(task.input_shape)} → {len(task.classes)} classes"


def describe_spec(spec: Spec) -> str:
    """The whole spec, one formula a line: `node 4 = sep_conv_5x5(prev) + identity(node 2)`."""
    sections = [f"{headline(spec)}: {task_line(spec)}"]
    sections += ["\n".join(_graph_lines(graph)) for graph in graphs_of(spec)]
    return "\n\n".join([*sections, "\n".join(_outline_lines(spec))]) + "\n"


def _graph_lines(graph: Graph) -> Iterator[str]:
    yield f"{graph.title}: {graph.caption}"
    width = max(len(node.name) for node in graph.nodes)
    for node in graph.nodes:
        yield f"  {node.name:{width}} = {_formula(node)}"


def _formula(node: GraphNode) -> str:
    if node.role == "input":
        return f"output of the {node.caption}"
    terms = [_term(edge) for edge in node.edges]
    return " + ".join(terms) if node.join == "sum" else f"{node.join}({', '.join(terms)})"


def _term(edge: GraphEdge) -> str:
    return edge.source if edge.operation is None else f"{edge.operation}({edge.source})"


def _outline_lines(spec: Spec) -> Iterator[str]:
    yield "network: output of each stage"
    stages = outline_of(spec)
    names = [stage.title for stage in stages]
    shapes = [shape_text(stage.shape) for stage in stages]
    for stage, name, shape in zip(stages, names, shapes, strict=True):
        inside = "" if stage.width is None else f"operations on {stage.width} channels"
        yield f"  {name:{max(map(len, names))}}  {shape:{max(map(len, shapes))}}  {inside}".rstrip()
