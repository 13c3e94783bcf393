"""Functions that the passes share: constants of a graph, and replacing nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Returns the array of a constant value; None if the value depends on the inputs."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def producer(value: ir.Value | None, operation: str) -> ir.Node | None:
    """Returns the node that produces a value, if it has that operation and no other reader; else None."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != operation or node.domain:
        return None
    (output, *_) = node.outputs
    return node if len(output.uses()) == 1 and not output.is_graph_output() else None


def initializer(graph: ir.Graph, array: np.ndarray, *, name: str) -> ir.Value:
    """Adds a constant to a graph, under that name or, if it is taken, a similar name."""
    while name in graph.initializers:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def replace_node(graph: ir.Graph, node: ir.Node, others: Sequence[ir.Node]) -> None:
    """Replaces a node by `others`, the last of which produces its output; the output keeps its name."""
    (old,), (new,) = node.outputs, others[-1].outputs
    for place, other in enumerate(others):
        other.name = node.name if len(others) == 1 else f"{node.name}.{place}"
        other.outputs[0].name = f"{old.name}.{place}"
    new.name, new.shape, new.type = old.name, old.shape, old.type
    replace_nodes_and_values(graph, node, [node], others, [old], [new])
