"""The data set that a preset is meant for, where the user names none. Loads no torch: `make` asks on each call."""

from __future__ import annotations

from foundation.document import unknown
from searcher.arch.errors import ArchitectureError
from searcher.arch.space import space_module
from searcher.arch.tasks import IMAGE_CLASSIFICATION, LANGUAGE_MODELLING

IMAGES = {
    "quick": "fashion-mnist-mini",
    "standard": "fashion-mnist",
    "deploy": "fashion-mnist",
    "paper": "cifar10",
    "reference": "cifar10",
}
TEXTS = {"quick": "shakespeare", "small": "shakespeare", "paper": "ptb", "reference": "ptb"}
_OF_KIND = {IMAGE_CLASSIFICATION: IMAGES, LANGUAGE_MODELLING: TEXTS}

_PUBLISHED = ("paper", "reference")
"""Presets that are what somebody published."""


def is_published(preset: str) -> bool:
    """Whether a preset is a search that somebody published."""
    return preset in _PUBLISHED


def default_space(preset: str) -> str:
    """The space that is meant when the user names none: that for deployment, unless the preset was published."""
    return "micro" if is_published(preset) else "stages"


def default_dataset(space: str, preset: str) -> str:
    """The data set of presets of that name. Raises: ArchitectureError: there is no such space or preset."""
    datasets = _OF_KIND[space_module(space).TASK_KIND]
    if preset not in datasets:
        raise ArchitectureError("preset", [unknown("preset", preset, tuple(datasets))])
    return datasets[preset]
