"""Describes a stages network part by part: its costs, the graph of its layers, and its fused blocks.

Knows nothing of torch, pixels or SVG; the loops mirror the wiring in `nn/stages.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from searcher.arch.costs import linear
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.spec import SpecOf
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem, stage_stride
from searcher.arch.stages.operations import layer_cost
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import HEAD, Block, after, stem_blocks
from searcher.nn.complexity import Part, stem_part
from searcher.report.graph import Graph, GraphEdge, GraphNode
from searcher.report.graph import Stage as OutlineStage

StagesSpec = SpecOf[StagesArchitecture, StagesSize, ImageClassification]


def parts(spec: StagesSpec) -> Iterator[Part]:
    architecture = spec.architecture
    task = spec.task
    stem = stem_part(task.input_shape, architecture.stem.channels, stride=architecture.stem.stride)
    yield stem
    height, width, channels = stem.shape
    for number, stage in enumerate(architecture.stages):
        for position, name in enumerate(stage.layers):
            stride = 1 if position else stage_stride(number)
            in_area = height * width
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            cost = layer_cost(name, (in_area, height * width), (channels, stage.channels), stride=stride)
            channels = stage.channels
            yield Part(f"layer {number + 1}.{position + 1}, {name}", (height, width, channels), cost)
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(channels, num_classes))


def graphs(spec: StagesSpec) -> tuple[Graph, ...]:
    architecture = spec.architecture
    stem_shape, *shapes = _shapes(spec)
    nodes = [GraphNode("stem", role="input", caption="first convolution", shape=stem_shape)]
    for number, (stage, shape) in enumerate(zip(architecture.stages, shapes, strict=True), start=1):
        for position, operation in enumerate(stage.layers, start=1):
            edges = (GraphEdge(nodes[-1].name, operation),)
            note = f"stage {number}" if position == 1 else ""
            nodes.append(GraphNode(f"layer {number}.{position}", edges, shape=shape, note=note))
    caption = "a layer adds its input to its result where both have one shape; a residual one always does"
    return (Graph("layers", caption, tuple(nodes), is_chain=True),)


def outline(spec: StagesSpec) -> tuple[OutlineStage, ...]:
    stem_shape, *shapes = _shapes(spec)
    stages = [
        OutlineStage(f"stage {number}", shape, width=shape[-1], reduces=stage_stride(number - 1) > 1)
        for number, shape in enumerate(shapes, start=1)
    ]
    return (OutlineStage("stem", stem_shape), *stages, OutlineStage("classifier", (len(spec.task.classes),)))


def _shapes(spec: StagesSpec) -> tuple[tuple[int, ...], ...]:
    """Height, width and channels of the outputs of the stem and of every stage."""
    architecture = spec.architecture
    height, width = (math.ceil(side / architecture.stem.stride) for side in spec.task.input_shape[:2])
    shapes = [(height, width, architecture.stem.channels)]
    for number, stage in enumerate(architecture.stages):
        height, width = (math.ceil(side / stage_stride(number)) for side in (height, width))
        shapes.append((height, width, stage.channels))
    return tuple(shapes)


# --- latency ---------------------------------------------------------------------------------------------------------


def blocks(spec: StagesSpec) -> Iterator[Block]:
    """The fused blocks of the network, from its input to its output."""
    height, width, in_channels = spec.task.input_shape
    stem = spec.architecture.stem
    yield from stem_blocks(in_channels, stem.channels, height, width, stride=stem.stride)
    height, width, channels = after(height, stem.stride), after(width, stem.stride), stem.channels
    for number, stage in enumerate(spec.architecture.stages):
        for position, operation in enumerate(stage.layers):
            stride = 1 if position else stage_stride(number)
            yield Block(operation, channels, stage.channels, height, width, stride)
            height, width, channels = after(height, stride), after(width, stride), stage.channels
    yield Block(HEAD, channels, len(spec.task.classes), height, width)


def covering(space: StagesSpace) -> Iterator[StagesArchitecture]:
    """Yields architectures that together contain every block of any architecture of the space.

    A block depends on its operation, the stem's stride, and the widths before and after it.
    """
    neighbours = [space.stem_channels, *space.stage_channels]
    most = max(map(len, neighbours))
    for stride, operation in itertools.product(space.stem_strides, space.operations):
        for number in range(most**2):
            # Over all numbers, every width of a stage follows every width of the stage before it.
            widths = [
                options[(number // most if position % 2 else number) % len(options)]
                for position, options in enumerate(neighbours)
            ]
            stages = [
                Stage(width, (operation,) * min(2, depth))
                for width, depth in zip(widths[1:], space.max_layers, strict=True)
            ]
            yield StagesArchitecture(Stem(widths[0], stride), tuple(stages))


def reference(architecture: StagesArchitecture, space: StagesSpace) -> StagesArchitecture | None:
    """Returns a published architecture as latency targets use it: with the smallest maps of the space."""
    return replace(architecture, stem=replace(architecture.stem, stride=max(space.stem_strides)))
