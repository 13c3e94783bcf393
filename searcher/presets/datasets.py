"""The default data set of each preset. Loads no torch, because `make` reads it on each call."""

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
"""Presets that reproduce a published search."""


def is_published(preset: str) -> bool:
    """Whether a preset reproduces a published search."""
    return preset in _PUBLISHED


def default_space(preset: str) -> str:
    """Returns the default space of a preset: the one for deployment, or micro if the preset was published."""
    return "micro" if is_published(preset) else "stages"


def default_dataset(space: str, preset: str) -> str:
    """Returns the default data set of a preset. Raises: ArchitectureError: there is no such space or preset."""
    datasets = _OF_KIND[space_module(space).TASK_KIND]
    if preset not in datasets:
        raise ArchitectureError("preset", [unknown("preset", preset, tuple(datasets))])
    return datasets[preset]
