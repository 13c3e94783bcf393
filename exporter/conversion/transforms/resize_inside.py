"""A second form of a classifier, which takes pictures of any size and resizes them in the graph.

This is the numpy code of `docs/preprocessing.md` as ONNX. Pixels agree with Pillow's, and so with training; they differ
by one grey level where Pillow resizes the height before the width. Expects upright, opaque pictures with the model's
channels.
"""

# B batch, H height and W width of a picture, h height and w width of the model's images, C channels

from __future__ import annotations

import onnx
from onnx import TensorProto, compose, parser

from foundation.pictures import Resize

# Weights of `size` input pixels in each of `count` output pixels, which show the part from low to high; all double:
# [count, size].
_WEIGHTS = """
    {p}scale = Div({p}extent, {count})
    {p}spread = Max({p}scale, one)
    {p}inverse = Div(one, {p}spread)
    {p}places = Range(zero, {count}, one)
    {p}middles = Add({p}places, half)
    {p}offsets = Mul({p}middles, {p}scale)
    {p}centres = Add({p}low, {p}offsets)
    {p}columns = Unsqueeze({p}centres, last)
    {p}pixels = Range(zero, {size}, one)
    {p}distances = Sub({p}pixels, {p}columns)
    {p}shifted = Add({p}distances, half)
    {p}scaled = Mul({p}shifted, {p}inverse)
    {p}lengths = Abs({p}scaled)
    {p}heights = Sub(one, {p}lengths)
    {p}triangle = Max({p}heights, zero)
    {p}sums = ReduceSum({p}triangle, last)
    {p}shares = Div({p}triangle, {p}sums)
    {p}steps = Mul({p}shares, precision)
    {p}raised = Add({p}steps, half)
    {p}weights = Floor({p}raised)
"""

_SQUASH = """
    across_low = Identity(zero)
    across_extent = Identity(W)
    down_low = Identity(zero)
    down_extent = Identity(H)
"""

# Edges are rounded to float32, as in Pillow.
_CENTER_CROP = """
    ratio = Div(w, h)
    picture_ratio = Div(W, H)
    is_wide = GreaterOrEqual(picture_ratio, ratio)
    wide_width = Mul(ratio, H)
    tall_height = Div(W, ratio)
    shown_width = Where(is_wide, wide_width, W)
    shown_height = Where(is_wide, H, tall_height)
    spare_width = Sub(W, shown_width)
    spare_height = Sub(H, shown_height)
    left = Mul(spare_width, half)
    top = Mul(spare_height, half)
    right = Add(left, shown_width)
    bottom = Add(top, shown_height)
    left32 = Cast<to = 1>(left)
    right32 = Cast<to = 1>(right)
    top32 = Cast<to = 1>(top)
    bottom32 = Cast<to = 1>(bottom)
    across_low = Cast<to = 11>(left32)
    across_high = Cast<to = 11>(right32)
    down_low = Cast<to = 11>(top32)
    down_high = Cast<to = 11>(bottom32)
    across_extent = Sub(across_high, across_low)
    down_extent = Sub(down_high, down_low)
"""

_GRAPH = """
resize (uint8[batch, height, width, {channels}] pictures) => (uint8[batch, {h}, {w}, {channels}] resized)
<double zero = {{0}}, double one = {{1}}, double half = {{0.5}}, double precision = {{4194304}}, int64[1] last = {{-1}},
 double h = {{{h}}}, double w = {{{w}}}, int64 first = {{1}}, int64 second = {{2}}>
{{
    shape = Shape(pictures)
    H_int = Gather(shape, first)
    W_int = Gather(shape, second)
    H = Cast<to = 11>(H_int)
    W = Cast<to = 11>(W_int)
    {part}
    {across}
    {down}
    pixels = Cast<to = 11>(pictures)
    rows_sums = Einsum<equation = "ow,bhwc->bhoc">(across_weights, pixels)
    rows_means = Div(rows_sums, precision)
    rows_raised = Add(rows_means, half)
    rows = Floor(rows_raised)
    whole_sums = Einsum<equation = "oh,bhwc->bowc">(down_weights, rows)
    whole_means = Div(whole_sums, precision)
    whole_raised = Add(whole_means, half)
    whole = Floor(whole_raised)
    resized = Cast<to = 2>(whole)
}}
"""


def resize_inside(model: onnx.ModelProto, *, input_shape: tuple[int, int, int], resize: Resize) -> onnx.ModelProto:
    """Returns the model for `images` uint8 [B, H, W, C] of any size, with its metadata.

    Args: input_shape: h, w, C.
    """
    height, width, channels = input_shape
    text = _GRAPH.format(
        h=height,
        w=width,
        channels=channels,
        part=_SQUASH if resize == "squash" else _CENTER_CROP,
        across=_WEIGHTS.format(p="across_", count="w", size="W"),
        down=_WEIGHTS.format(p="down_", count="h", size="H"),
    )
    graph = parser.parse_graph(text)
    before = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    before = compose.add_prefix(before, "resize.")
    for value in before.graph.input:
        value.name = "images"
    for node in before.graph.node:
        node.input[:] = ["images" if name == "resize.pictures" else name for name in node.input]
    after = onnx.ModelProto()
    after.CopyFrom(model)
    for value in after.graph.input:
        value.name = "resize.resized"
    for node in after.graph.node:
        node.input[:] = ["resize.resized" if name == "images" else name for name in node.input]
    assert before.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    before.graph.node.extend(after.graph.node)
    before.graph.initializer.extend(after.graph.initializer)
    before.graph.value_info.extend(after.graph.value_info)
    del before.graph.output[:]
    before.graph.output.extend(after.graph.output)
    before.graph.name = after.graph.name
    before.metadata_props.extend(after.metadata_props)
    before.producer_name, before.producer_version = after.producer_name, after.producer_version
    return before
