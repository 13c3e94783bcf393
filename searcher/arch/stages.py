"""The stages space, for deployment: a stem, then stages of layers, where widths, depths and operations are free.

The first layer of a stage brings its input to the stage's width and, from the second stage on, to half its size. Widths
are in the architecture, so that any network of this form, whatever its widths, is a spec: ResNet-20 is one.

Source: Bender et al. 2020 (TuNAS) and Tan et al. 2019 (MnasNet) for spaces of this kind; He et al. 2016, Sandler et al.
2018 and Gupta and Akin 2020 for the three families of operations.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from searcher.arch.costs import Cost, conv_norm, depthwise, norm
from searcher.arch.decisions import Choice, Step
from searcher.arch.document import ArchitectureError, ConfigError, Problems, check_keys, unknown
from searcher.arch.operations import check_operations
from searcher.arch.tasks import IMAGE_CLASSIFICATION

Family = Literal["residual", "fused", "inverted"]
STEM_STRIDES = (1, 2, 4, 8, 16)


class Operation(NamedTuple):
    """What a layer's name says of it."""

    family: Family
    kernel_size: int
    expansion: int = 1
    """Inner channels by input channels."""

    @property
    def block(self) -> str:
        """Names what shares weights in a supernet: one family and kernel, with all its expansions."""
        return f"{self.family}_{self.kernel_size}x{self.kernel_size}"


# Order matters: the integer encoding's index is the position in this table, so new operations come last.
OPERATIONS: dict[str, Operation] = {
    "residual_3x3": Operation("residual", 3),
    "fused_3x3_e2": Operation("fused", 3, 2),
    "fused_3x3_e4": Operation("fused", 3, 4),
    "inverted_3x3_e2": Operation("inverted", 3, 2),
    "inverted_3x3_e3": Operation("inverted", 3, 3),
    "inverted_3x3_e4": Operation("inverted", 3, 4),
    "inverted_3x3_e6": Operation("inverted", 3, 6),
    "inverted_5x5_e2": Operation("inverted", 5, 2),
    "inverted_5x5_e4": Operation("inverted", 5, 4),
    "inverted_5x5_e6": Operation("inverted", 5, 6),
}
STANDARD_OPERATIONS = (
    "residual_3x3",
    "fused_3x3_e2",
    "fused_3x3_e4",
    "inverted_3x3_e2",
    "inverted_3x3_e3",
    "inverted_3x3_e4",
    "inverted_3x3_e6",
    "inverted_5x5_e2",
    "inverted_5x5_e4",
    "inverted_5x5_e6",
)
"""What a layer may be unless a space says otherwise: a new operation changes no search until one names it."""
ABSENT = "absent"
"""The decision against a layer; architectures do not hold it."""


def _residual(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (_, area), (before, after) = areas, channels
    kernel_size = operation.kernel_size
    cost = conv_norm(area, before, after, kernel_size=kernel_size)
    cost += conv_norm(area, after, after, kernel_size=kernel_size)
    return cost + conv_norm(area, before, after) if stride > 1 or before != after else cost


def _fused(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (_, area), (before, after) = areas, channels
    inner = operation.expansion * before
    return conv_norm(area, before, inner, kernel_size=operation.kernel_size) + conv_norm(area, inner, after)


def _inverted(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (in_area, area), (before, after) = areas, channels
    inner = operation.expansion * before
    middle = depthwise(area, inner, kernel_size=operation.kernel_size) + norm(inner)
    return conv_norm(in_area, before, inner) + middle + conv_norm(area, inner, after)


_FAMILIES: dict[Family, Callable[..., Cost]] = {"residual": _residual, "fused": _fused, "inverted": _inverted}


def layer_cost(name: str, areas: tuple[int, int], channels: tuple[int, int], *, stride: int) -> Cost:
    """What a layer costs. areas, channels: of its input and of its output."""
    operation = OPERATIONS[name]
    return _FAMILIES[operation.family](areas, channels, operation, stride=stride)


@dataclass(frozen=True)
class Stem:
    """The first convolution, and how much smaller than the picture its output is, per side."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Stage:
    """Layers of one width, each given by its operation's name."""

    channels: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class StagesArchitecture:
    """A whole network.

    Raises: ArchitectureError: there is no stage, a stage has no layer, an operation is unknown, or a width is none.
    """

    stem: Stem
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        problems = Problems("architecture")
        for problem in _stem_problems(self.stem.channels, self.stem.stride):
            problems.add(f"stem.{problem}")
        if not self.stages:
            problems.add("stages is empty; at least one stage is needed")
        for position, stage in enumerate(self.stages):
            for problem in _stage_problems(stage.channels, stage.layers):
                problems.add(f"stages[{position}].{problem}")
        problems.raise_if_any(ArchitectureError)

    def used(self) -> dict[tuple[str, ...], set[Any]]:
        """What a network of this architecture needs: at each site, the chosen candidates (see `nn/banks.py`)."""
        return {
            ("layer", str(number), str(position)): {operation}
            for number, stage in enumerate(self.stages)
            for position, operation in enumerate(stage.layers)
        }


@dataclass(frozen=True)
class StagesSize:
    """The `network` section of a spec, and of a search's config: empty, for the architecture decides all sizes."""


@dataclass(frozen=True)
class StagesSpace:
    """All networks whose widths and strides are among those given, with up to `max_layers` layers in each stage.

    Widths of whole blocks of 16 channels, or of 8, are fast in onnxruntime; others are allowed.
    """

    stem_channels: tuple[int, ...]
    stem_strides: tuple[int, ...]
    stage_channels: tuple[tuple[int, ...], ...]
    """For each stage, the widths to choose from."""
    max_layers: tuple[int, ...]
    """For each stage; every stage has at least one layer."""
    operations: tuple[str, ...] = STANDARD_OPERATIONS

    def __post_init__(self) -> None:
        for name, values in self._choices():
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} is {list(values)}; expected one or more different values")
        for name, widths in (("stem_channels", self.stem_channels), *self._stage_widths()):
            if min(widths) < 1:
                raise ConfigError(f"{name} is {list(widths)}; widths are at least 1")
        for stride in self.stem_strides:
            if stride not in STEM_STRIDES:
                raise ConfigError(f"stem_strides has {stride}; expected some of {', '.join(map(str, STEM_STRIDES))}")
        check_operations(self.operations, OPERATIONS)
        if not self.stage_channels or len(self.max_layers) != len(self.stage_channels):
            raise ConfigError(
                f"max_layers has {len(self.max_layers)} values for {len(self.stage_channels)} stages; expected one each"
            )
        if min(self.max_layers) < 1:
            raise ConfigError(f"max_layers is {list(self.max_layers)}; at least 1 is needed in every stage")

    @property
    def size(self) -> int:
        """The number of different architectures."""
        depths = (
            len(widths) * sum(len(self.operations) ** depth for depth in range(1, most + 1))
            for widths, most in zip(self.stage_channels, self.max_layers, strict=True)
        )
        return len(self.stem_channels) * len(self.stem_strides) * math.prod(depths)

    def steps(self) -> tuple[Step, ...]:
        """What the controller decides, in order: the stem, then for each stage its width and its layers.

        Every stage's first layer is there; the others may be absent.
        """
        later = Choice((*self.operations, ABSENT), scope="layer")
        sequence: list[Step] = [_number(self.stem_channels, "stem"), _number(self.stem_strides, "stem")]
        for widths, most in zip(self.stage_channels, self.max_layers, strict=True):
            sequence += [_number(widths, "stage"), Choice(self.operations, scope="layer"), *[later] * (most - 1)]
        return tuple(sequence)

    def from_tokens(self, tokens: Sequence[int]) -> StagesArchitecture:
        """The architecture of a row of tokens: stem width and stride; for each stage, its width and its layers.

        Absent layers are left out, wherever they stand, and those behind them move up: rows that differ in nothing else
        are one architecture.
        """
        expected = 2 + sum(1 + most for most in self.max_layers)
        if len(tokens) != expected:
            raise ArchitectureError("tokens", [f"{len(tokens)} numbers; expected {expected}"])
        row = iter(tokens)
        stem = Stem(self.stem_channels[next(row)], self.stem_strides[next(row)])
        stages = []
        for widths, most in zip(self.stage_channels, self.max_layers, strict=True):
            width = widths[next(row)]
            options = (*self.operations, ABSENT)
            names = [options[next(row)] for _ in range(most)]
            stages.append(Stage(width, tuple(name for name in names if name != ABSENT)))
        return StagesArchitecture(stem, tuple(stages))

    def to_tokens(self, architecture: StagesArchitecture) -> list[int]:
        """The row of tokens that `from_tokens` reads as this architecture and that has absent layers at the end only.

        Raises: ArchitectureError: the architecture is not in this space.
        """
        absent = len(self.operations)
        try:
            tokens = [
                self.stem_channels.index(architecture.stem.channels),
                self.stem_strides.index(architecture.stem.stride),
            ]
            for stage, widths, most in zip(architecture.stages, self.stage_channels, self.max_layers, strict=True):
                layers = [self.operations.index(name) for name in stage.layers]
                if len(layers) > most:
                    raise ValueError(f"{len(layers)} layers in a stage of at most {most}")
                tokens += [widths.index(stage.channels), *layers, *[absent] * (most - len(layers))]
        except ValueError as problem:
            raise ArchitectureError("architecture", [f"not in this space: {problem}"]) from None
        return tokens

    def random(self, rng: random.Random) -> StagesArchitecture:
        """An architecture with every decision uniform and independent."""
        options = [len(step.options) for step in self.steps() if isinstance(step, Choice)]
        return self.from_tokens([rng.randrange(count) for count in options])

    @staticmethod
    def around(architecture: StagesArchitecture) -> StagesSpace:
        """The smallest space that holds an architecture: with no other choice of width, stride or operation."""
        return StagesSpace(
            (architecture.stem.channels,),
            (architecture.stem.stride,),
            tuple((stage.channels,) for stage in architecture.stages),
            tuple(len(stage.layers) for stage in architecture.stages),
            tuple(dict.fromkeys(name for stage in architecture.stages for name in stage.layers)),
        )

    def _stage_widths(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"stage_channels[{index}]", widths) for index, widths in enumerate(self.stage_channels))

    def _choices(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield "stem_channels", self.stem_channels
        yield "stem_strides", self.stem_strides
        yield from self._stage_widths()


def stage_stride(stage: int) -> int:
    """The stride of the first layer of stage `stage`, counted from 0."""
    return 1 if stage == 0 else 2


def to_document(architecture: StagesArchitecture) -> dict[str, Any]:
    """The `architecture` section of a spec."""
    return {
        "stem": {"channels": architecture.stem.channels, "stride": architecture.stem.stride},
        "stages": [{"channels": stage.channels, "layers": list(stage.layers)} for stage in architecture.stages],
    }


def from_document(document: object, *, place: str, problems: Problems) -> StagesArchitecture | None:
    """Read the `architecture` section of a spec; None, with the reasons noted, if it breaks a rule."""
    if not isinstance(document, Mapping):
        problems.add(f"{place} must be an object with the keys stem and stages")
        return None
    before = len(problems)
    check_keys(document, place=place, required=("stem", "stages"), problems=problems)
    stem = _read_stem(document.get("stem", {}), place=f"{place}.stem", problems=problems)
    stages = tuple(_read_stages(document.get("stages", []), place=f"{place}.stages", problems=problems))
    return None if len(problems) > before or stem is None else StagesArchitecture(stem, stages)


def from_published(text: str) -> StagesArchitecture:
    """Read the integer encoding: stem width and stride; for each stage its width, its number of layers, and each one's
    operation as its position in OPERATIONS.

    The encoding is our own, for the literature has none that holds widths.
    Raises: ArchitectureError: not whole numbers, too few of them, or a number out of range.
    """
    source = "integer encoding"
    try:
        numbers = [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ArchitectureError(source, ["expected whole numbers separated by blanks"]) from None
    if len(numbers) < 5:
        raise ArchitectureError(source, [f"{len(numbers)} numbers; expected 2 for the stem and 3 or more a stage"])
    stem, rest = Stem(*numbers[:2]), numbers[2:]
    names = tuple(OPERATIONS)
    stages: list[Stage] = []
    while rest:
        channels, depth, *operations = rest if len(rest) > 1 else [*rest, 0]
        if depth < 1 or len(operations) < depth:
            raise ArchitectureError(
                source, [f"stage {len(stages) + 1}: expected its width, its number of layers, and that many operations"]
            )
        for number in operations[:depth]:
            if not 0 <= number < len(names):
                problem = f"stage {len(stages) + 1}: operation {number}; expected 0 to {len(names) - 1}"
                raise ArchitectureError(source, [problem])
        stages.append(Stage(channels, tuple(names[number] for number in operations[:depth])))
        rest = rest[2 + depth :]
    return StagesArchitecture(stem, tuple(stages))


def to_published(architecture: StagesArchitecture) -> str:
    """The inverse of `from_published`: a line for the stem and one for each stage."""
    names = tuple(OPERATIONS)
    rows = [
        [architecture.stem.channels, architecture.stem.stride],
        *([stage.channels, len(stage.layers), *map(names.index, stage.layers)] for stage in architecture.stages),
    ]
    return "\n".join(" ".join(map(str, row)) for row in rows)


def _number(values: tuple[int, ...], scope: str) -> Choice:
    return Choice(tuple(map(str, values)), scope=scope)


def _read_stem(document: object, *, place: str, problems: Problems) -> Stem | None:
    if not isinstance(document, Mapping):
        problems.add(f"{place} must be an object with the keys channels and stride")
        return None
    before = len(problems)
    check_keys(document, place=place, required=("channels", "stride"), problems=problems)
    if len(problems) > before:
        return None
    for problem in _stem_problems(document["channels"], document["stride"]):
        problems.add(f"{place}.{problem}")
    return None if len(problems) > before else Stem(document["channels"], document["stride"])


def _read_stages(document: object, *, place: str, problems: Problems) -> Iterator[Stage]:
    if not isinstance(document, list) or not document:
        problems.add(f"{place} must be a list with at least one stage")
        return
    for position, entry in enumerate(document):
        stage_place = f"{place}[{position}]"
        if not isinstance(entry, Mapping):
            problems.add(f"{stage_place} must be an object with the keys channels and layers")
            continue
        before = len(problems)
        check_keys(entry, place=stage_place, required=("channels", "layers"), problems=problems)
        if len(problems) > before:
            continue
        if not isinstance(entry["layers"], list):
            problems.add(f"{stage_place}.layers must be a list of operations")
            continue
        for problem in _stage_problems(entry["channels"], entry["layers"]):
            problems.add(f"{stage_place}.{problem}")
        if len(problems) == before:
            yield Stage(entry["channels"], tuple(entry["layers"]))


def _stem_problems(channels: object, stride: object) -> Iterator[str]:
    yield from _width_problems(channels)
    if type(stride) is not int or stride not in STEM_STRIDES:
        yield f"stride is {stride!r}; expected one of {', '.join(map(str, STEM_STRIDES))}"


def _stage_problems(channels: object, layers: Sequence[object]) -> Iterator[str]:
    yield from _width_problems(channels)
    if not layers:
        yield "layers is empty; at least one layer is needed"
    for position, operation in enumerate(layers):
        if operation == ABSENT:
            yield f"layers[{position}]: a layer that is absent is left out"
        elif not isinstance(operation, str) or operation not in OPERATIONS:
            yield f"layers[{position}]: {unknown('operation', operation, OPERATIONS)}"


def _width_problems(channels: object) -> Iterator[str]:
    if type(channels) is not int or channels < 1:
        yield f"channels is {channels!r}; expected a whole number above 0"


def stem_stride_of(architecture: StagesArchitecture, size: StagesSize) -> int:
    """How much smaller than the picture the first layers' input is, per side."""
    return architecture.stem.stride


def with_stem_stride(
    architecture: StagesArchitecture, size: StagesSize, stride: int
) -> tuple[StagesArchitecture, StagesSize]:
    """The same network for pictures of another size."""
    return replace(architecture, stem=replace(architecture.stem, stride=stride)), size


SPACE = StagesSpace
SIZE = StagesSize
TASK_KIND = IMAGE_CLASSIFICATION
LACKS = {"auxiliary_weight": "auxiliary head", "drop_path_prob": "paths to drop"}
