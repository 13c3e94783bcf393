"""The presets of all spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from searcher.arch.document import ArchitectureError, unknown
from searcher.presets import images, macro, micro, recurrent, stages
from searcher.training.search_config import SearchConfig


class SpacePresets(NamedTuple):
    """A space's presets by name."""

    configs: Mapping[str, Callable[..., SearchConfig]]
    """Functions; those of convolutional spaces take the image_size to which the stem is fitted."""
    datasets: Mapping[str, str]
    """What each preset is meant for, when the user names no data set."""


PRESETS = {
    "micro": SpacePresets(micro.PRESETS, images.DATASETS),
    "macro": SpacePresets(macro.PRESETS, images.DATASETS),
    "stages": SpacePresets(stages.PRESETS, stages.DATASETS),
    "recurrent": SpacePresets(recurrent.PRESETS, recurrent.DATASETS),
}


def search_preset(space: str, name: str, *, image_size: int | None = None) -> SearchConfig:
    """The preset `name` of a space, its stem fitted to images of `image_size` pixels a side where it has one.

    Raises: ArchitectureError: there is no such space or preset.
    """
    config = _of(space, name).configs[name]
    return config() if image_size is None else config(image_size=image_size)


def default_dataset(space: str, name: str) -> str:
    """The data set that a preset is meant for. Raises: ArchitectureError: there is no such space or preset."""
    return _of(space, name).datasets[name]


def _of(space: str, name: str) -> SpacePresets:
    if space not in PRESETS:
        raise ArchitectureError("space", [unknown("space", space, tuple(PRESETS))])
    if name not in PRESETS[space].configs:
        raise ArchitectureError("preset", [unknown("preset", name, tuple(PRESETS[space].configs))])
    return PRESETS[space]
