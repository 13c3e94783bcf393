"""The macro space: a whole convolutional network, layer by layer, with skip connections.

Tensor 0 is the output of the stem and tensor k that of layer k, counted from 1. Layer k applies its operation to tensor
k - 1 and joins the result with its *skips*, any of the tensors 0 to k - 2. After two of the layers, at one third and
two thirds of the depth, all tensors are halved.

Source: Pham et al. 2018, section 2.3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from foundation.document import ConfigError, Problems, unknown
from searcher.arch.decisions import Choice, LearnedAnchor, Step, Subset
from searcher.arch.errors import ArchitectureError
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH, check_at_most
from searcher.arch.operations import LAYER_COSTS, check_operations
from searcher.arch.reading import check_number, read_entries, read_numbers
from searcher.arch.stems import check_stem_stride
from searcher.arch.tasks import IMAGE_CLASSIFICATION

# Order matters: the controller's index is the position in this tuple, unless a space has other operations.
PUBLISHED_OPERATIONS = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
MIN_LAYERS = 3
SkipMerge = Literal["sum", "concat", "residual"]


@dataclass(frozen=True)
class Layer:
    """A layer applies `operation` to the previous tensor and joins the result with the tensors `skips`, ascending."""

    operation: str
    skips: tuple[int, ...] = ()


def skip_candidates(layer: int) -> range:
    """The tensors that layer `layer` may skip from."""
    return range(layer - 1)


def reduction_layers(num_layers: int) -> tuple[int, int]:
    """The two layers after which all tensors are halved. Source: the authors' code; 12 layers give 4 and 8."""
    return num_layers // 3, 2 * (num_layers // 3)


@dataclass(frozen=True)
class MacroArchitecture:
    """All layers; layer k of the network is `layers[k - 1]`.

    Raises: ArchitectureError: there are too few, an operation is unknown, or a skip breaks a rule.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        problems = Problems("architecture")
        if len(self.layers) < MIN_LAYERS:
            problems.add(_too_few(len(self.layers)))
        for position, layer in enumerate(self.layers):
            for problem in _layer_problems(position, layer.operation, layer.skips):
                problems.add(f"layers[{position}].{problem}")
        problems.raise_if_any(ArchitectureError)

    def read_after(self, layer: int) -> tuple[int, ...]:
        """Returns the tensors from 0 to `layer` that a later layer reads, in order; the last one is always read."""
        skipped = {tensor for later in self.layers[layer:] for tensor in later.skips}
        return tuple(tensor for tensor in range(layer + 1) if tensor == layer or tensor in skipped)

    def used(self) -> dict[tuple[str, ...], set[Any]]:
        """Returns the candidates chosen at each site of a network of this architecture (see `nn/banks.py`)."""
        sites: dict[tuple[str, ...], set[Any]] = {}
        for index, layer in enumerate(self.layers, start=1):
            sites["operation", str(index)] = {layer.operation}
            sites["merge", str(index)] = {*layer.skips, index}
        for index in reduction_layers(len(self.layers)):
            sites["reduction", str(index)] = set(self.read_after(index))
        return sites


@dataclass(frozen=True)
class MacroSize:
    """The network's width and how it joins skips: the `network` section of a spec, and of a search's config.

    The architecture determines its depth.
    """

    channels: int
    """Width of the stem and the first layers."""
    stem_stride: int = 1
    """Ratio of the picture's side to the side of the first layer's input, a power of two."""
    skip_merge: SkipMerge = "concat"
    """How a layer joins its skips with its operation's result. sum: sum, then norm (the authors' search). concat:
    concatenation, then ReLU, 1×1 convolution, norm (the paper, and the authors' final network). residual: sum only,
    which costs almost nothing in a runtime."""
    double_channels: bool = False
    """Whether halving the maps doubles the channels, as in the authors' final network."""

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise ConfigError(f"channels is {self.channels}; at least 2 are needed")
        check_at_most(MAX_WIDTH, channels=self.channels)
        check_stem_stride("stem_stride", self.stem_stride)


@dataclass(frozen=True)
class MacroSpace:
    """All macro architectures of `num_layers` layers of the given operations."""

    num_layers: int = 12
    stem_anchor: bool = True
    """Whether the controller has a learned anchor for the stem. The authors' code has none: there a skip from tensor j
    attends to the anchor of layer j + 1."""
    operations: tuple[str, ...] = PUBLISHED_OPERATIONS
    """Operations of a layer; by default those of the paper."""

    def __post_init__(self) -> None:
        if self.num_layers < MIN_LAYERS:
            raise ConfigError(f"num_layers is {self.num_layers}; at least {MIN_LAYERS} are needed")
        check_at_most(MAX_DEPTH, num_layers=self.num_layers)
        check_operations(self.operations, LAYER_COSTS)

    @property
    def size(self) -> int:
        """The number of ways to make all decisions."""
        return int(len(self.operations) ** self.num_layers * 2 ** math.comb(self.num_layers, 2))

    def steps(self) -> tuple[Step, ...]:
        """The controller's decisions, in order: for each layer, the operation, then the skips."""
        sequence: list[Step] = [LearnedAnchor()] if self.stem_anchor else []
        for layer in range(1, self.num_layers + 1):
            sequence += [Choice(self.operations, scope="layer"), Subset(len(skip_candidates(layer)))]
        return tuple(sequence)

    def from_tokens(self, tokens: Sequence[int]) -> MacroArchitecture:
        """The architecture of a row of tokens (for layer k the operation, then k - 1 times 0 or 1)."""
        return MacroArchitecture(tuple(_read_row(row, self.operations) for row in _rows(tokens, self.num_layers)))

    def to_tokens(self, architecture: MacroArchitecture) -> list[int]:
        """The inverse of `from_tokens`."""
        return [token for row in _write_rows(architecture, self.operations) for token in row]

    def random(self, rng: random.Random) -> MacroArchitecture:
        """An architecture with every decision uniform and independent."""
        return MacroArchitecture(
            tuple(
                Layer(
                    rng.choice(self.operations),
                    tuple(tensor for tensor in skip_candidates(layer) if rng.randrange(2) == 1),
                )
                for layer in range(1, self.num_layers + 1)
            )
        )


def to_document(architecture: MacroArchitecture) -> list[dict[str, Any]]:
    """The `architecture` section of a spec."""
    return [
        {"layer": index, "operation": layer.operation, "skips": list(layer.skips)}
        for index, layer in enumerate(architecture.layers, start=1)
    ]


def from_document(document: object, *, place: str, problems: Problems) -> MacroArchitecture | None:
    """Read the `architecture` section of a spec; None, with the reasons noted, if it breaks a rule."""
    if not isinstance(document, list):
        problems.add(f"{place} must be a list of layers")
        return None
    before = len(problems)
    if len(document) < MIN_LAYERS:
        problems.add(f"{place} has {_too_few(len(document))}")
    layers = tuple(_read_layers(document, place=place, problems=problems))
    return None if len(problems) > before else MacroArchitecture(layers)


def from_published(text: str) -> MacroArchitecture:
    """Read the published encoding: for layer k `operation`, then k - 1 times 0 or 1, for the tensors from 0 on.

    Raises: ArchitectureError: not whole numbers, not a whole number of layers, or a number out of range.
    Source: the authors' README; operations as in LAYER_COSTS.
    """
    source, names = "published encoding", tuple(LAYER_COSTS)
    numbers = read_numbers(text, source=source)
    num_layers = (math.isqrt(8 * len(numbers) + 1) - 1) // 2
    if not numbers or len(numbers) != math.comb(num_layers + 1, 2):
        raise ArchitectureError(
            source, [f"{len(numbers)} numbers; expected k of them for each layer k, e.g. 78 for 12 layers"]
        )
    problems = Problems(source)
    for position, (operation, *bits) in enumerate(_rows(numbers, num_layers), start=1):
        if not 0 <= operation < len(names):
            problems.add(f"row {position}: operation {operation}; expected 0 to {len(names) - 1}")
        for bit in bits:
            if bit not in (0, 1):
                problems.add(f"row {position}: skip {bit}; expected 0 or 1")
    problems.raise_if_any(ArchitectureError)
    return MacroArchitecture(tuple(_read_row(row, names) for row in _rows(numbers, num_layers)))


def to_published(architecture: MacroArchitecture) -> str:
    """The inverse of `from_published`: a line for each layer."""
    return "\n".join(" ".join(map(str, row)) for row in _write_rows(architecture, tuple(LAYER_COSTS)))


def _rows(numbers: Sequence[int], num_layers: int) -> Iterator[Sequence[int]]:
    """Yields a row for each layer, of 1, 2, 3, … numbers."""
    expected = math.comb(num_layers + 1, 2)
    if len(numbers) != expected:
        raise ArchitectureError("tokens", [f"{len(numbers)} numbers; expected {expected}"])
    start = 0
    for length in range(1, num_layers + 1):
        yield numbers[start : start + length]
        start += length


def _read_row(row: Sequence[int], operations: Sequence[str]) -> Layer:
    operation, *bits = row
    return Layer(operations[operation], tuple(tensor for tensor, bit in enumerate(bits) if bit))


def _write_rows(architecture: MacroArchitecture, operations: Sequence[str]) -> Iterator[list[int]]:
    for index, layer in enumerate(architecture.layers, start=1):
        yield [operations.index(layer.operation), *(int(tensor in layer.skips) for tensor in skip_candidates(index))]


def _read_layers(document: Sequence[object], *, place: str, problems: Problems) -> Iterator[Layer]:
    keys = ("layer", "operation", "skips")
    for position, layer_place, layer in read_entries(document, place=place, keys=keys, problems=problems):
        before = len(problems)
        check_number(layer, "layer", place=layer_place, position=position, first=1, problems=problems)
        if not isinstance(layer["skips"], list):
            problems.add(f"{layer_place}.skips must be a list")
            continue
        for problem in _layer_problems(position, layer["operation"], layer["skips"]):
            problems.add(f"{layer_place}.{problem}")
        if len(problems) == before:
            yield Layer(layer["operation"], tuple(layer["skips"]))


def _layer_problems(position: int, operation: object, skips: Sequence[Any]) -> Iterator[str]:
    layer = position + 1
    candidates = skip_candidates(layer)
    if not isinstance(operation, str) or operation not in LAYER_COSTS:
        yield f"operation: {unknown('operation', operation, LAYER_COSTS)}"
    strange = False
    for slot, tensor in enumerate(skips):
        if type(tensor) is not int or tensor not in candidates:
            allowed = f"can only skip from tensors 0 to {layer - 2}" if candidates else "has nothing to skip from"
            yield f"skips[{slot}] is {tensor!r}, but layer {layer} {allowed}"
            strange = True
    if not strange and list(skips) != sorted(set(skips)):
        yield f"skips is {list(skips)}; expected every tensor once, in rising order"


def _too_few(num_layers: int) -> str:
    return f"{num_layers} layers; at least {MIN_LAYERS} are needed, after two of which the maps are halved"


def stem_stride_of(architecture: MacroArchitecture, size: MacroSize) -> int:
    """The ratio of the picture's side to the side of the first layers' input."""
    return size.stem_stride


def with_stem_stride(
    architecture: MacroArchitecture, size: MacroSize, stride: int
) -> tuple[MacroArchitecture, MacroSize]:
    """The same network for pictures of another size."""
    return architecture, replace(size, stem_stride=stride)


SPACE = MacroSpace
SIZE = MacroSize
TASK_KIND = IMAGE_CLASSIFICATION
LACKS = {"auxiliary_weight": "auxiliary head", "drop_path_prob": "paths to drop"}
