"""The passes between torch's exporter and the file, in order; each is a numbered rule in its own file.

    1  pool_means         a mean over a map is a GlobalAveragePool
    2  merge_reductions   a factorised reduction is one 2×2 convolution
    3  align              channels in whole blocks of a CPU's kernels; requested and measured by `enas export --align`

A pass changes how a model computes, but not its outputs, except for rounding. Tests check this on random networks of
every image space, and `enas export` checks it on the whole test split.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from exporter.conversion.transforms.merge_reductions import merge_reductions
from exporter.conversion.transforms.pool_means import pool_means

_PASSES = (pool_means, merge_reductions)


def transform(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model after all passes, without unused nodes and without shapes of initializers in `value_info`."""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    for apply in _PASSES:
        apply(graph)
    RemoveUnusedNodesPass()(graph)
    transformed = ir.to_proto(graph)
    drop_initializer_types(transformed.graph)
    return transformed


def drop_initializer_types(graph: onnx.GraphProto) -> None:
    """Removes initializers from `value_info`.

    They contain their own shapes, and onnxruntime's quantisers fail if `value_info` repeats them.
    """
    constants = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(kept)
