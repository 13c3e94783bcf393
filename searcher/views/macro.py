"""Describes a macro network part by part: its costs, the graph of its layers, and its fused blocks.

Knows nothing of torch, pixels or SVG; the loops mirror the wiring in `nn/macro.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from searcher.arch.costs import Cost, conv_norm, factorized_reduction, halved, linear, norm, total
from searcher.arch.operations import LAYER_COSTS
from searcher.arch.spaces.macro import (
    Layer,
    MacroArchitecture,
    MacroSize,
    MacroSpace,
    SkipMerge,
    reduction_layers,
    skip_candidates,
)
from searcher.arch.spec import SpecOf
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import CONCAT, HALVE, HEAD, PROJECT, SUM, Block, after, stem_blocks
from searcher.nn.complexity import Part, stem_part
from searcher.report.graph import Graph, GraphEdge, GraphNode, Join, Stage

MacroSpec = SpecOf[MacroArchitecture, MacroSize, ImageClassification]


def parts(spec: MacroSpec) -> Iterator[Part]:
    size = spec.network
    task = spec.task
    channels = size.channels
    stem = stem_part(task.input_shape, channels, stride=size.stem_stride)
    yield stem
    height, width, _ = stem.shape
    layers = spec.architecture.layers
    for index, layer in enumerate(layers, start=1):
        cost = LAYER_COSTS[layer.operation](height * width, channels)
        if skip_candidates(index):
            cost += _merge(height * width, channels, num_tensors=len(layer.skips) + 1, merge=size.skip_merge)
        yield Part(f"layer {index}, {layer.operation}", (height, width, channels), cost)
        if index in reduction_layers(len(layers)):
            out_channels = 2 * channels if size.double_channels else channels
            tensors = spec.architecture.read_after(index)
            costs = [factorized_reduction((height, width), channels, out_channels) for _ in tensors]
            height, width = halved((height, width))
            yield Part(f"reduction, {len(tensors)} tensors", (height, width, out_channels), total(costs))
            channels = out_channels
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(channels, num_classes))


def _merge(area: int, channels: int, *, num_tensors: int, merge: SkipMerge) -> Cost:
    if merge == "residual":
        return Cost()
    return norm(channels) if merge == "sum" else conv_norm(area, num_tensors * channels, channels)


def graphs(spec: MacroSpec) -> tuple[Graph, ...]:
    architecture = spec.architecture
    join: Join = "concat" if spec.network.skip_merge == "concat" else "sum"
    first, second = reduction_layers(len(architecture.layers))
    shapes = _shapes(spec)
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


def outline(spec: MacroSpec) -> tuple[Stage, ...]:
    """Runs of layers between the reductions, with their sizes in `nn/macro.py`."""
    shapes = _shapes(spec)
    stages = [Stage("stem", shapes[0])]
    start = 1
    for stop in (*reduction_layers(len(shapes) - 1), len(shapes) - 1):
        shape = shapes[start]
        if start > 1:
            stages.append(Stage("reduction", shape, reduces=True))
        stages.append(Stage("layer", shape, count=stop - start + 1, width=shape[-1]))
        start = stop + 1
    return (*stages, Stage("classifier", (len(spec.task.classes),)))


def _shapes(spec: MacroSpec) -> tuple[tuple[int, ...], ...]:
    """Height, width and channels of the outputs of the stem and of every layer."""
    size = spec.network
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


# --- latency ---------------------------------------------------------------------------------------------------------


def blocks(spec: MacroSpec) -> Iterator[Block]:
    """The fused blocks of the network, from its input to its output."""
    size = spec.network
    height, width, in_channels = spec.task.input_shape
    channels = size.channels
    yield from stem_blocks(in_channels, channels, height, width, stride=size.stem_stride)
    height, width = after(height, size.stem_stride), after(width, size.stem_stride)
    layers = spec.architecture.layers
    for index, layer in enumerate(layers, start=1):
        yield Block(layer.operation, channels, channels, height, width)
        if size.skip_merge in ("sum", "residual"):
            for _ in layer.skips:
                yield Block(SUM, channels, channels, height, width)
        elif skip_candidates(index):
            joined = (len(layer.skips) + 1) * channels
            if layer.skips:
                yield Block(CONCAT, channels, joined, height, width)
            yield Block(PROJECT, joined, channels, height, width)
        if index in reduction_layers(len(layers)):
            out_channels = 2 * channels if size.double_channels else channels
            for _ in spec.architecture.read_after(index):
                yield Block(HALVE, channels, out_channels, height, width, 2)
            height, width, channels = after(height, 2), after(width, 2), out_channels
    yield Block(HEAD, channels, len(spec.task.classes), height, width)


def covering(space: MacroSpace) -> Iterator[MacroArchitecture]:
    """Yields architectures that together contain every block of any architecture of the space.

    A block depends on its operation, on its layer, and on how many skips the layer has.
    """
    for operation, count in itertools.product(space.operations, range(space.num_layers)):
        layers = [Layer(operation, tuple(skip_candidates(index))[:count]) for index in range(1, space.num_layers + 1)]
        yield MacroArchitecture(tuple(layers))


def reference(architecture: MacroArchitecture, space: MacroSpace) -> MacroArchitecture | None:
    """Returns None: no latency target names a published architecture of this space."""
    return None
