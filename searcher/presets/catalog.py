"""The presets of all spaces."""

from __future__ import annotations

from foundation.document import unknown
from searcher.arch.errors import ArchitectureError
from searcher.presets import datasets
from searcher.spaces import Presets, search_space
from searcher.training.search_config import SearchConfig


def search_preset(space: str, name: str, *, image_size: int | None = None) -> SearchConfig:
    """Returns the preset `name` of a space. image_size: pixels a side, to which an image preset fits its stem.

    Raises: ArchitectureError: there is no such space or preset.
    """
    config = _presets_with(space, name).PRESETS[name]
    made: SearchConfig = config() if image_size is None else config(image_size=image_size)
    return made


def default_dataset(space: str, name: str) -> str:
    """Returns the default data set of a preset. Raises: ArchitectureError: there is no such space or preset."""
    _presets_with(space, name)
    return datasets.default_dataset(space, name)


def default_latency(space: str) -> str | None:
    """Returns the default latency target of a space's deployed networks; None if there is none."""
    return search_space(space).presets.LATENCY


def _presets_with(space: str, name: str) -> Presets:
    presets = search_space(space).presets
    if name not in presets.PRESETS:
        why = f"; nobody has published a search of the space {space}" if datasets.is_published(name) else ""
        raise ArchitectureError("preset", [unknown("preset", name, tuple(presets.PRESETS)) + why])
    return presets
