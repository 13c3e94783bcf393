"""What the network of a spec costs, by arithmetic alone: the network is not built, and torch is not loaded.

Three figures, for the final form without its auxiliary head, which only training has:
  parameters     elements of all weights, those of norms among them; running averages are no parameters;
  multiply_adds  of convolutions and matrix products, for one image or one token; what they read of padding counts;
  activations    elements of the outputs of convolutions and matrix products, for one image or one token.

Each space has a walk that mirrors its wiring, made of the same blocks; the tests hold it equal to what torch counts.
Source: Radosavovic et al. 2020, "Designing Network Design Spaces", for activations as a measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from searcher.arch import macro, micro, stages
from searcher.arch.costs import Cost, conv_norm, linear, norm, total
from searcher.arch.macro import MacroSize, SkipMerge, reduction_layers, skip_candidates
from searcher.arch.micro import NUM_INPUTS, Cell, CellKind, MicroSize, loose_ends
from searcher.arch.recurrent import STATE, RecurrentSize
from searcher.arch.spec import Spec
from searcher.arch.stages import StagesArchitecture, stage_stride
from searcher.arch.tasks import ImageClassification, LanguageModelling


@dataclass(frozen=True)
class Part:
    """A part of the network that has a name: the stem, a cell, the classifier."""

    name: str
    shape: tuple[int, ...]
    """Of its output: height, width, channels; or the number of features alone."""
    cost: Cost


@dataclass(frozen=True)
class Complexity:
    """The parts of a network from its input to its output, each with its cost."""

    parts: tuple[Part, ...]

    @property
    def total(self) -> Cost:
        return total(part.cost for part in self.parts)

    def to_document(self) -> dict[str, Any]:
        """For a program to read: `{"total": {"parameters": …}, "parts": [{"name": …, "shape": …, …}]}`."""
        parts = [{"name": part.name, "shape": list(part.shape), **asdict(part.cost)} for part in self.parts]
        return {"total": asdict(self.total), "parts": parts}


def complexity_of(spec: Spec) -> Complexity:
    """What the network of a spec costs."""
    return Complexity(tuple(_WALKS[spec.space](spec)))


def _stem(input_shape: tuple[int, ...], out_channels: int, *, stride: int) -> Part:
    height, width, in_channels = input_shape
    cost = Cost()
    for step in [2] * int(math.log2(stride)) or [1]:
        height, width = math.ceil(height / step), math.ceil(width / step)
        cost += conv_norm(height * width, in_channels, out_channels, kernel_size=3)
        in_channels = out_channels
    return Part("stem", (height, width, out_channels), cost)


# --- micro ------------------------------------------------------------------------------------------------------------


def _micro_parts(spec: Spec) -> Iterator[Part]:
    size: MicroSize = spec.network
    task: ImageClassification = spec.task
    channels = size.channels
    stem = _stem(task.input_shape, 3 * channels, stride=size.stem_stride)
    yield stem
    height, width, _ = stem.shape
    widths = (3 * channels, 3 * channels)  # channels of the cell's two inputs
    for position in range(size.cells):
        kind = size.kind(position)
        cell = spec.architecture.cell(kind)
        in_area = height * width
        if kind == "reduction":
            channels *= 2
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        reduce_first_input = position > 0 and size.kind(position - 1) == "reduction"
        cost = _micro_calibration(in_area, widths, channels, reduce_first_input=reduce_first_input)
        cost += _micro_cell(cell, kind, area=height * width, channels=channels)
        widths = (widths[1], channels * len(loose_ends(cell)))
        yield Part(f"cell {position}, {kind}", (height, width, widths[1]), cost)
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(widths[1], num_classes))


def _micro_calibration(area: int, widths: tuple[int, int], channels: int, *, reduce_first_input: bool) -> Cost:
    """Brings both inputs of a cell to `channels`; a first input that is twice as large costs the same to halve."""
    first, second = widths
    cost = conv_norm(area, channels, channels)
    if first != channels or reduce_first_input:
        cost += conv_norm(area, first, channels)
    if second != channels:
        cost += conv_norm(area, second, channels)
    return cost


def _micro_cell(cell: Cell, kind: CellKind, *, area: int, channels: int) -> Cost:
    def stride(source: int) -> int:
        return 2 if kind == "reduction" and source < NUM_INPUTS else 1

    operations = (
        micro.OPERATIONS[name](area, channels, stride=stride(source))
        for node in cell
        for source, name in zip(node.inputs, node.operations, strict=True)
    )
    # An unused input of a reduction cell is halved like an identity.
    leaves = (micro.identity_cost(area, channels, stride=stride(leaf)) for leaf in loose_ends(cell))
    return total(operations) + total(leaves)


# --- macro ------------------------------------------------------------------------------------------------------------


def _macro_parts(spec: Spec) -> Iterator[Part]:
    size: MacroSize = spec.network
    task: ImageClassification = spec.task
    channels = size.channels
    stem = _stem(task.input_shape, channels, stride=size.stem_stride)
    yield stem
    height, width, _ = stem.shape
    layers = spec.architecture.layers
    for index, layer in enumerate(layers, start=1):
        cost = macro.OPERATIONS[layer.operation](height * width, channels)
        if skip_candidates(index):
            cost += _macro_merge(height * width, channels, num_tensors=len(layer.skips) + 1, merge=size.skip_merge)
        yield Part(f"layer {index}, {layer.operation}", (height, width, channels), cost)
        if index in reduction_layers(len(layers)):
            out_channels = 2 * channels if size.double_channels else channels
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            halved = spec.architecture.read_after(index)
            costs = [conv_norm(height * width, channels, out_channels) for _ in halved]
            yield Part(f"reduction, {len(halved)} tensors", (height, width, out_channels), total(costs))
            channels = out_channels
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(channels, num_classes))


def _macro_merge(area: int, channels: int, *, num_tensors: int, merge: SkipMerge) -> Cost:
    if merge == "residual":
        return Cost()
    return norm(channels) if merge == "sum" else conv_norm(area, num_tensors * channels, channels)


# --- stages -----------------------------------------------------------------------------------------------------------


def _stages_parts(spec: Spec) -> Iterator[Part]:
    architecture: StagesArchitecture = spec.architecture
    task: ImageClassification = spec.task
    stem = _stem(task.input_shape, architecture.stem.channels, stride=architecture.stem.stride)
    yield stem
    height, width, channels = stem.shape
    for number, stage in enumerate(architecture.stages):
        for position, name in enumerate(stage.layers):
            stride = 1 if position else stage_stride(number)
            in_area = height * width
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            cost = stages.layer_cost(name, (in_area, height * width), (channels, stage.channels), stride=stride)
            channels = stage.channels
            yield Part(f"layer {number + 1}.{position + 1}, {name}", (height, width, channels), cost)
    num_classes = len(task.classes)
    yield Part("classifier", (num_classes,), linear(channels, num_classes))


# --- recurrent --------------------------------------------------------------------------------------------------------


def _recurrent_parts(spec: Spec) -> Iterator[Part]:
    size: RecurrentSize = spec.network
    task: LanguageModelling = spec.task
    hidden, vocabulary = size.hidden_size, task.vocabulary_size
    gate_and_candidate = linear(hidden, 2 * hidden)
    yield Part("embedding", (hidden,), Cost(parameters=vocabulary * hidden))
    for number, node in enumerate(spec.architecture.nodes, start=1):
        # The first node reads the token beside the state, through a matrix of its own.
        num_matrices = 2 if node.previous == STATE else 1
        yield Part(f"node {number}, {node.activation}", (hidden,), total([gate_and_candidate] * num_matrices))
    # Its weights are the embedding's.
    yield Part("softmax", (vocabulary,), replace(linear(hidden, vocabulary), parameters=0))


_WALKS: dict[str, Callable[[Spec], Iterator[Part]]] = {
    "micro": _micro_parts,
    "macro": _macro_parts,
    "stages": _stages_parts,
    "recurrent": _recurrent_parts,
}
