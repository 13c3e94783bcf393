"""A network of the stages space: its stem, its stages of layers, and the rules for both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.document import Problems, unknown
from searcher.arch.errors import ArchitectureError
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH
from searcher.arch.stages.operations import ABSENT, OPERATIONS
from searcher.arch.stems import STEM_STRIDES


@dataclass(frozen=True)
class Stem:
    """The first convolutions: their channels, and the ratio of the picture's side to the side of their output."""

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

    Raises: ArchitectureError: there is no stage, a stage has no layer or too many, an operation is unknown, or a width
        or the stem's stride is not allowed.
    """

    stem: Stem
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        problems = Problems("architecture")
        for problem in stem_problems(self.stem.channels, self.stem.stride):
            problems.add(f"stem.{problem}")
        if not self.stages:
            problems.add("stages is empty; at least one stage is needed")
        for position, stage in enumerate(self.stages):
            for problem in stage_problems(stage.channels, stage.layers):
                problems.add(f"stages[{position}].{problem}")
        problems.raise_if_any(ArchitectureError)

    def used(self) -> dict[tuple[str, ...], set[Any]]:
        """Returns the candidates chosen at each site of a network of this architecture (see `nn/banks.py`)."""
        return {
            ("layer", str(number), str(position)): {operation}
            for number, stage in enumerate(self.stages)
            for position, operation in enumerate(stage.layers)
        }


def stage_stride(stage: int) -> int:
    """The stride of the first layer of stage `stage`, counted from 0."""
    return 1 if stage == 0 else 2


def stem_problems(channels: object, stride: object) -> Iterator[str]:
    """Yields the problems of a stem, each with its place in the stem."""
    yield from _width_problems(channels)
    if type(stride) is not int or stride not in STEM_STRIDES:
        yield f"stride is {stride!r}; expected one of {', '.join(map(str, STEM_STRIDES))}"


def stage_problems(channels: object, layers: Sequence[object]) -> Iterator[str]:
    """Yields the problems of a stage, each with its place in the stage."""
    yield from _width_problems(channels)
    if not layers:
        yield "layers is empty; at least one layer is needed"
    if len(layers) > MAX_DEPTH:
        yield f"layers has {len(layers):,} entries; at most {MAX_DEPTH:,} are allowed"
        return
    for position, operation in enumerate(layers):
        if operation == ABSENT:
            yield f"layers[{position}]: a layer that is absent is left out"
        elif not isinstance(operation, str) or operation not in OPERATIONS:
            yield f"layers[{position}]: {unknown('operation', operation, OPERATIONS)}"


def _width_problems(channels: object) -> Iterator[str]:
    if type(channels) is not int or channels < 1:
        yield f"channels is {channels!r}; expected a whole number above 0"
    elif channels > MAX_WIDTH:
        yield f"channels is {channels:,}; at most {MAX_WIDTH:,} is allowed"
