"""Between torch's exporter and the file: every pass that pays, in order, each a numbered rule in a file of its own.

    1  pool_means         a mean over a map is a GlobalAveragePool
    2  merge_reductions   a factorised reduction is one 2×2 convolution
    3  align              channels in whole blocks of a CPU's kernels; asked for, and measured, by `enas export --align`

Passes change how a model computes, never what: its answers are the same up to rounding, which the tests prove over
random networks of every image space, and `enas export` on the whole test split.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.conversion.transforms.merge_reductions import merge_reductions
from exporter.conversion.transforms.pool_means import pool_means

_PASSES = (pool_means, merge_reductions)


def transform(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after all passes; what nothing reads any more is gone, and of shapes only those of values are kept."""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    for apply in _PASSES:
        apply(graph)
    RemoveUnusedNodesPass()(graph)
    transformed = ir.to_proto(graph)
    drop_initializer_types(transformed.graph)
    return transformed


def drop_initializer_types(graph: onnx.GraphProto) -> None:
    """Initializers carry their shapes; onnxruntime's quantisers stumble over those that `value_info` repeats."""
    constants = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(kept)
