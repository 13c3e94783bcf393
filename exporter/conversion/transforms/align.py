"""Rule 3: channels are filled up to whole blocks of a CPU's kernels; outputs do not depend on the added channels.

The output channels of every dense convolution become a multiple of `block`, by rows of zeros in its weight. The weights
that read them have zeros in the added columns, so the added channels of intermediate values may contain anything.
Precondition: every operation on the way is supported below, and the summands of an Add are filled up in the same way.
The gain depends on the CPU: blocks are 16 channels with AVX-512 and 8 with AVX2, where half blocks help, too. So
`fastest_alignment` measures, and fills up only if that is faster.
"""

# O output channels, I input channels

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from exporter.conversion.transforms.graph import constant, initializer

BLOCKS = (4, 8, 16)
_GAIN = 0.98

_PASS_ON = ("Relu", "Clip", "HardSwish", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Slice", "Pad")
"""Operations that treat all channels alike; Slice and Pad act only along height and width."""

Layout = np.ndarray
"""For each channel of a value, the index of the original channel, or -1 for an added channel: [channels]."""
Measure = Callable[[Sequence[bytes]], Sequence[float]]
"""ONNX files -> the latency of each, relative to the first."""


class AlignmentError(ValueError):
    """A graph contains an operation that does not support filled-up channels."""


def align(model: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """Returns the model with channels in multiples of `block`, and the same outputs. Raises: AlignmentError."""
    graph = ir.from_proto(model)
    layouts: dict[ir.Value, Layout] = {}
    for node in graph.graph:
        _fill_up(graph.graph, node, layouts, block)
    aligned = ir.to_proto(graph)
    del aligned.graph.value_info[:]  # it has the original widths
    used = {name for node in aligned.graph.node for name in node.input}
    kept = [tensor for tensor in aligned.graph.initializer if tensor.name in used]
    del aligned.graph.initializer[:]
    aligned.graph.initializer.extend(kept)
    return aligned


class Alignment(NamedTuple):
    """The fastest form of a model."""

    model: onnx.ModelProto
    block: int | None
    """The number of which its channels are multiples; None if they are unchanged."""
    why: str


def fastest_alignment(model: onnx.ModelProto, measure: Measure) -> Alignment:
    """Returns the fastest of the unchanged model and the model filled up to each block, and why."""
    candidates: dict[int, onnx.ModelProto] = {}
    size = _weights(model)
    for block in BLOCKS:
        try:
            aligned = align(model, block)
        except AlignmentError as error:
            return Alignment(model, None, f"channels stay as they are: {error}")
        # A block that adds no more channels than the block before gives the same file.
        if _weights(aligned) > max([size, *map(_weights, candidates.values())]):
            candidates[block] = aligned
    if not candidates:
        return Alignment(model, None, f"channels stay as they are: they are multiples of {BLOCKS[-1]}")
    _, *ratios = measure([model.SerializeToString(), *(one.SerializeToString() for one in candidates.values())])
    told = ", ".join(f"of {block} {ratio:.2f}" for block, ratio in zip(candidates, ratios, strict=True))
    ratio, block = min(zip(ratios, candidates, strict=True))
    if ratio > _GAIN:
        return Alignment(model, None, f"channels stay as they are: blocks {told} of the time")
    why = f"channels are filled up to multiples of {block}: blocks {told} of the time"
    return Alignment(candidates[block], block, why)


def _fill_up(graph: ir.Graph, node: ir.Node, layouts: dict[ir.Value, Layout], block: int) -> None:
    """Adapts a node to the layouts of its inputs, and records the layout of its output."""
    known = [layouts.get(value) for value in node.inputs if value is not None]
    (output, *_) = node.outputs
    layout = known[0] if known else None
    if node.op_type == "Conv":
        layouts[output] = _fill_up_conv(graph, node, layout, block)
    elif all(one is None for one in known):
        return
    elif node.op_type == "Concat" and node.attributes.get_int("axis") == 1:
        layouts[output] = _joined(node, layouts)
    elif node.op_type == "Gemm" and layout is not None:
        axis = 1 if node.attributes.get_int("transB", 0) else 0
        node.replace_input_with(1, _taken(graph, node.inputs[1], layout, axis=axis))
    elif node.op_type == "BatchNormalization" and layout is not None:
        for place, filling in ((1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0)):
            node.replace_input_with(place, _taken(graph, node.inputs[place], layout, axis=0, filling=filling))
        layouts[output] = layout
    elif node.op_type == "Add" and len(known) == 2 and all(one is not None for one in known):
        if not np.array_equal(known[0], known[1]):  # type: ignore[arg-type]
            raise AlignmentError(f"{node.name} adds values that are filled up differently")
        layouts[output] = known[0]  # type: ignore[assignment]
    elif node.op_type in _PASS_ON and layout is not None:
        layouts[output] = layout
    else:
        raise AlignmentError(f"{node.op_type} does not take filled-up channels")


def _fill_up_conv(graph: ir.Graph, conv: ir.Node, layout: Layout | None, block: int) -> Layout:
    """Fills up the outputs of a dense convolution, or adapts a depthwise convolution; returns the outputs' layout."""
    weight = constant(conv.inputs[1])
    if weight is None:
        raise AlignmentError(f"the weight of {conv.name} is not constant")
    groups = conv.attributes.get_int("group", 1)
    out_channels, inputs = weight.shape[:2]
    if groups == 1:
        before = layout if layout is not None else np.arange(inputs)
        after = np.concatenate([np.arange(out_channels), np.full(-out_channels % block, -1)])
        conv.replace_input_with(1, _taken(graph, conv.inputs[1], before, axis=1))
    elif groups == out_channels and inputs == 1:
        after = layout if layout is not None else np.arange(out_channels)
        conv.attributes["group"] = ir.AttrInt64("group", len(after))
    else:
        raise AlignmentError(f"{conv.name} has {groups} groups")
    for place in range(1, len(conv.inputs)):
        conv.replace_input_with(place, _taken(graph, conv.inputs[place], after, axis=0))
    return after


def _joined(node: ir.Node, layouts: dict[ir.Value, Layout]) -> Layout:
    """Returns the layout of a concatenation of channels."""
    parts, offset = [], 0
    for value in node.inputs:
        layout = None if value is None else layouts.get(value)
        if layout is None:
            raise AlignmentError(f"{node.name} joins values of which one is not filled up")
        parts.append(np.where(layout < 0, -1, layout + offset))
        offset += int((layout >= 0).sum())
    return np.concatenate(parts)


def _taken(
    graph: ir.Graph, value: ir.Value | None, layout: Layout, *, axis: int, filling: float = 0.0
) -> ir.Value | None:
    """Returns a constant with an axis rearranged to a layout; added places contain `filling`."""
    array = constant(value)
    if array is None or value is None:
        raise AlignmentError("a weight is not constant")
    if np.array_equal(layout, np.arange(array.shape[axis])):
        return value
    taken = np.take(array, np.maximum(layout, 0), axis=axis)
    shape = [1] * array.ndim
    shape[axis] = len(layout)
    filled = np.where((layout < 0).reshape(shape), np.asarray(filling, array.dtype), taken)
    return initializer(graph, filled, name=f"{value.name}.filled")


def _weights(model: onnx.ModelProto) -> int:
    """The total number of elements of all constants."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
