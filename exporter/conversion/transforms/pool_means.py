"""Rule 1: a mean over a map's height and width is a GlobalAveragePool.

    ReduceMean(x, axes=(2, 3), keepdims=1)  ->  GlobalAveragePool(x)
    ReduceMean(x, axes=(2, 3), keepdims=0)  ->  Flatten(GlobalAveragePool(x), axis=1)

Precondition: the axes are constant and x has four dimensions. Tools that do not know ReduceMean's newer forms, such as
onnx2torch and Core ML's converter, open the result; onnxruntime takes the same time for both.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.conversion.transforms.graph import constant, replace_node

_MAP_AXES = {2, 3}
_RANK = 4


def pool_means(model: ir.Model) -> int:
    """Applies the rule wherever it holds; returns the number of places."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "ReduceMean" or len(node.inputs) != 2:
            continue
        x, axes = node.inputs[0], constant(node.inputs[1])
        assert x is not None
        if axes is None or (x.shape is not None and len(x.shape) != _RANK):
            continue
        if {int(axis) % _RANK for axis in axes} != _MAP_AXES:
            continue
        pooled = ir.node("GlobalAveragePool", [x])
        if node.attributes.get_int("keepdims", 1):
            replace_node(model.graph, node, [pooled])
        else:
            replace_node(model.graph, node, [pooled, ir.node("Flatten", pooled.outputs, {"axis": 1})])
        count += 1
    return count
