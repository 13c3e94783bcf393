"""The interface of a search space, and all spaces by name: every module in `arch/spaces/` is one.

Nothing else knows which spaces exist, or how many.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from foundation.document import Problems, unknown
from searcher.arch.decisions import Step, option_counts
from searcher.arch.errors import ArchitectureError
from searcher.arch.space_names import SPACE_NAMES


class Space(Protocol):
    """The decisions of a search space, and the conversion between tokens and architectures."""

    @property
    def size(self) -> int: ...

    def steps(self) -> tuple[Step, ...]: ...

    def from_tokens(self, tokens: Sequence[int]) -> Any: ...

    def to_tokens(self, architecture: Any) -> list[int]: ...

    def random(self, rng: random.Random) -> Any: ...


def neighbour(space: Space, architecture: Any, rng: random.Random, *, changes: int) -> Any:
    """Returns an architecture with `changes` decisions changed; rarely the same one, if both rows of tokens name it.

    Raises: ArchitectureError: the architecture is not in the space.
    """
    tokens = space.to_tokens(architecture)
    free = [(place, count) for place, count in enumerate(option_counts(space.steps())) if count > 1]
    for place, count in rng.sample(free, min(changes, len(free))):
        tokens[place] = (tokens[place] + rng.randrange(1, count)) % count
    return space.from_tokens(tokens)


class SpaceModule(Protocol):
    """The interface of a module `arch/spaces/<space>.py`."""

    @property
    def SPACE(self) -> type[Any]: ...  # noqa: N802 - a class, named as the modules name it

    @property
    def SIZE(self) -> type[Any]: ...  # noqa: N802

    @property
    def TASK_KIND(self) -> str: ...  # noqa: N802

    @property
    def LACKS(self) -> Mapping[str, str]:  # noqa: N802
        """Training settings that need a part which the space's networks lack -> the name of that part."""
        ...

    def to_document(self, architecture: Any) -> Any: ...

    def from_document(self, document: object, *, place: str, problems: Problems) -> Any | None: ...

    def to_published(self, architecture: Any) -> str: ...

    def from_published(self, text: str) -> Any: ...


class ImageSpaceModule(SpaceModule, Protocol):
    """The interface of a space's module if its networks are for images."""

    def stem_stride_of(self, architecture: Any, size: Any) -> int: ...

    def with_stem_stride(self, architecture: Any, size: Any, stride: int) -> tuple[Any, Any]: ...


SPACES: Mapping[str, SpaceModule] = {
    name: cast(SpaceModule, import_module(f"searcher.arch.spaces.{name}")) for name in SPACE_NAMES
}


def space_module(name: str) -> SpaceModule:
    """The module that describes the space `name`.

    Raises: ArchitectureError: there is no such space.
    """
    if name not in SPACES:
        raise ArchitectureError("space", [unknown("space", name, SPACE_NAMES)])
    return SPACES[name]
