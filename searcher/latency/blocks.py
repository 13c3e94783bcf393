"""What a deployed network of images is made of, as a runtime sees it: fused blocks, each with its widths and its map.

A runtime folds norms into convolutions and runs a block as a whole, so the time of a block depends on what `Block`
holds and on nothing else. Knows of specs; nothing of how blocks compute or of how they are timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from searcher.arch.document import ConfigError
from searcher.arch.macro import MacroSize, reduction_layers, skip_candidates
from searcher.arch.micro import NUM_INPUTS, MicroSize, loose_ends
from searcher.arch.spec import Spec
from searcher.arch.stages import stage_stride


class Block(NamedTuple):
    """Takes a map of `height` × `width` pixels and `in_channels` channels to one of `out_channels`, at a stride."""

    operation: str
    """An operation of the space, or one of STEM, PROJECT, HALVE, CONCAT, SUM and HEAD."""
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int = 1


STEM = "stem"
"""3×3 convolution, norm."""
PROJECT = "project"
"""ReLU, 1×1 convolution, norm."""
HALVE = "halve"
"""Factorised reduction."""
CONCAT = "concat"
"""Tensors of equal width, side by side: in_channels is the width of one of them."""
SUM = "sum"
"""Of two tensors."""
HEAD = "head"
"""The mean over the map, and a linear layer."""


def blocks_of(spec: Spec) -> list[Block]:
    """The blocks of the network of a spec, from its input to its output.

    Raises: ConfigError: it is no network of images.
    """
    if spec.space not in _WALKS:
        raise ConfigError(f"networks of the space {spec.space} have no latency to search for; those of images have")
    return list(_WALKS[spec.space](spec))


def _stem(in_channels: int, out_channels: int, height: int, width: int, *, stride: int) -> Iterator[Block]:
    for step in [2] * int(math.log2(stride)) or [1]:
        yield Block(STEM, in_channels, out_channels, height, width, step)
        in_channels, height, width = out_channels, _after(height, step), _after(width, step)


def _stages(spec: Spec) -> Iterator[Block]:
    height, width, in_channels = spec.task.input_shape
    stem = spec.architecture.stem
    yield from _stem(in_channels, stem.channels, height, width, stride=stem.stride)
    height, width, channels = _after(height, stem.stride), _after(width, stem.stride), stem.channels
    for number, stage in enumerate(spec.architecture.stages):
        for position, operation in enumerate(stage.layers):
            stride = 1 if position else stage_stride(number)
            yield Block(operation, channels, stage.channels, height, width, stride)
            height, width, channels = _after(height, stride), _after(width, stride), stage.channels
    yield Block(HEAD, channels, len(spec.task.classes), height, width)


def _micro(spec: Spec) -> Iterator[Block]:
    size: MicroSize = spec.network
    height, width, in_channels = spec.task.input_shape
    channels = size.channels
    yield from _stem(in_channels, 3 * channels, height, width, stride=size.stem_stride)
    height, width = _after(height, size.stem_stride), _after(width, size.stem_stride)
    first = second = 3 * channels
    earlier = (height, width)  # the map of the cell's first input, which lags one cell behind
    for position in range(size.cells):
        kind = size.kind(position)
        reduces = kind == "reduction"
        cell = spec.architecture.cell(kind)
        if reduces:
            channels *= 2
        if position > 0 and size.kind(position - 1) == "reduction":
            yield Block(HALVE, first, channels, *earlier, 2)
        elif first != channels:
            yield Block(PROJECT, first, channels, height, width)
        if second != channels:
            yield Block(PROJECT, second, channels, height, width)
        yield Block(PROJECT, channels, channels, height, width)
        after = (_after(height, 2), _after(width, 2)) if reduces else (height, width)
        for node in cell:
            for source, operation in zip(node.inputs, node.operations, strict=True):
                strided = reduces and source < NUM_INPUTS
                map_size = (height, width) if strided or not reduces else after
                if operation != "identity":
                    yield Block(operation, channels, channels, *map_size, 2 if strided else 1)
                elif strided:
                    yield Block(HALVE, channels, channels, *map_size, 2)
            yield Block(SUM, channels, channels, *after)
        ends = loose_ends(cell)
        for end in ends:
            if reduces and end < NUM_INPUTS:
                yield Block(HALVE, channels, channels, height, width, 2)
        earlier, (height, width) = (height, width), after
        first, second = second, channels * len(ends)
        if len(ends) > 1:
            yield Block(CONCAT, channels, second, height, width)
    yield Block(HEAD, second, len(spec.task.classes), height, width)


def _macro(spec: Spec) -> Iterator[Block]:
    size: MacroSize = spec.network
    height, width, in_channels = spec.task.input_shape
    channels = size.channels
    yield from _stem(in_channels, channels, height, width, stride=size.stem_stride)
    height, width = _after(height, size.stem_stride), _after(width, size.stem_stride)
    layers = spec.architecture.layers
    for index, layer in enumerate(layers, start=1):
        yield Block(layer.operation, channels, channels, height, width)
        if skip_candidates(index) and size.skip_merge == "sum":
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
            height, width, channels = _after(height, 2), _after(width, 2), out_channels
    yield Block(HEAD, channels, len(spec.task.classes), height, width)


def _after(side: int, stride: int) -> int:
    return -(-side // stride)


_WALKS: dict[str, Callable[[Spec], Iterator[Any]]] = {"stages": _stages, "micro": _micro, "macro": _macro}
