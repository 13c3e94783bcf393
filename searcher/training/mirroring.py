"""Decides whether training mirrors pictures: as the user asks, else as the search did, else by the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from datasets.mirroring import look_alikes
from datasets.store import ImageStore, TextStore
from foundation.document import ConfigError
from searcher.training.image_learner import ImageTraining

Config = TypeVar("Config", bound=Any)

FLIP = "training.augmentation.flip"
"""The setting, as users name it."""


def decide_flip(
    config: Config,
    store: ImageStore | TextStore,
    *,
    flip: bool | None,
    is_own: bool = False,
    searched_without: bool = False,
    say: Callable[[str], object],
) -> Config:
    """Returns the configuration of a search or a retraining with mirroring on or off; reports doubtful cases.

    Args: flip: the user's option. is_own: the user made the setting, so it is not changed; a doubt is only reported.
    searched_without: the search that found the network did not mirror. say: receives a line.
    Raises: ConfigError: `flip` is given, but the data are text.
    """
    if not isinstance(config.training, ImageTraining) or not isinstance(store, ImageStore):
        if flip is not None:
            raise ConfigError("--flip and --no-flip are for pictures")
        return config
    if flip is not None:
        return with_flip(config, flip=flip)
    if not config.training.augmentation.flip:
        return config
    if searched_without and not is_own:
        say("pictures are not mirrored, as they were not in the search; --flip mirrors them")
        return with_flip(config, flip=False)
    found = look_alikes(store)
    if found is None:
        return config
    if found.is_clear and not is_own:
        say(f"{found}: pictures are not mirrored in training; --flip mirrors them all the same")
        return with_flip(config, flip=False)
    say(f"{found}: if left and right matter, train with --no-flip")
    return config


def with_flip(config: Config, *, flip: bool) -> Config:
    """Returns the configuration with mirroring on or off, otherwise unchanged."""
    training = config.training
    return replace(config, training=replace(training, augmentation=replace(training.augmentation, flip=flip)))
