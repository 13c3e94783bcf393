"""The stages space, for deployment: a stem, then stages of layers, with free widths, depths and operations.

The first layer of a stage brings its input to the stage's width and, from the second stage on, to half its size. The
architecture contains the widths, so that any network of this form can be a spec, for example ResNet-20. `arch/stages/`
defines the architecture and its written forms.

Source: Bender et al. 2020 (TuNAS) and Tan et al. 2019 (MnasNet) for spaces of this kind.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foundation.document import ConfigError
from searcher.arch.decisions import Choice, Step
from searcher.arch.errors import ArchitectureError
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH, check_at_most
from searcher.arch.operations import check_operations
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem
from searcher.arch.stages.documents import from_document, from_published, to_document, to_published
from searcher.arch.stages.operations import ABSENT, OPERATIONS, STANDARD_OPERATIONS
from searcher.arch.stems import STEM_STRIDES
from searcher.arch.tasks import IMAGE_CLASSIFICATION

__all__ = ["from_document", "from_published", "to_document", "to_published"]


@dataclass(frozen=True)
class StagesSize:
    """The `network` section of a spec, and of a search's config: empty, because the architecture contains all sizes."""


@dataclass(frozen=True)
class StagesSpace:
    """All networks whose widths and strides are among those given, with up to `max_layers` layers in each stage.

    Widths that are multiples of 16 or 8 channels are fast in onnxruntime; others are allowed.
    """

    stem_channels: tuple[int, ...]
    stem_strides: tuple[int, ...]
    stage_channels: tuple[tuple[int, ...], ...]
    """For each stage, the widths to choose from."""
    max_layers: tuple[int, ...]
    """For each stage, the maximum number of layers; every stage has at least one layer."""
    operations: tuple[str, ...] = STANDARD_OPERATIONS

    def __post_init__(self) -> None:
        for name, values in self._choices():
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} is {list(values)}; expected one or more different values")
        for name, widths in (("stem_channels", self.stem_channels), *self._stage_widths()):
            if min(widths) < 1:
                raise ConfigError(f"{name} is {list(widths)}; widths are at least 1")
            check_at_most(MAX_WIDTH, **{name: max(widths)})
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
        check_at_most(MAX_DEPTH, max_layers=max(self.max_layers))

    @property
    def size(self) -> int:
        """The number of different architectures."""
        depths = (
            len(widths) * sum(len(self.operations) ** depth for depth in range(1, most + 1))
            for widths, most in zip(self.stage_channels, self.max_layers, strict=True)
        )
        return len(self.stem_channels) * len(self.stem_strides) * int(math.prod(depths))

    def steps(self) -> tuple[Step, ...]:
        """The controller's decisions, in order: the stem, then for each stage its width and its layers.

        The first layer of a stage always exists; the others may be absent.
        """
        later = Choice((*self.operations, ABSENT), scope="layer")
        sequence: list[Step] = [_number(self.stem_channels, "stem"), _number(self.stem_strides, "stem")]
        for widths, most in zip(self.stage_channels, self.max_layers, strict=True):
            sequence += [_number(widths, "stage"), Choice(self.operations, scope="layer"), *[later] * (most - 1)]
        return tuple(sequence)

    def from_tokens(self, tokens: Sequence[int]) -> StagesArchitecture:
        """The architecture of a row of tokens: stem width and stride; for each stage, its width and its layers.

        Absent layers are omitted, wherever they are, and later layers move up: rows that differ only in the positions
        of absent layers are the same architecture.
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
        """Returns the architecture's row of tokens, in which absent layers are only at the end of each stage.

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
        """The smallest space that contains an architecture: it has no other width, stride or operation."""
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


def _number(values: tuple[int, ...], scope: str) -> Choice:
    return Choice(tuple(map(str, values)), scope=scope)


def stem_stride_of(architecture: StagesArchitecture, size: StagesSize) -> int:
    """The ratio of the picture's side to the side of the first layers' input."""
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
