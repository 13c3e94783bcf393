"""Whether training mirrors pictures: what the user says, else what the search did, else what the pictures say."""

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
    """The configuration of a search or a retraining with mirroring on or off, and a word where that is a question.

    Args: flip: what the user says. is_own: the setting is the user's own, which is not changed, only warned of.
    searched_without: the search whose network is trained mirrored nothing. say: takes a line.
    Raises: ConfigError: the user says something of mirroring, but it is text.
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
    """The configuration with mirroring on or off, and all else as it is."""
    training = config.training
    return replace(config, training=replace(training, augmentation=replace(training.augmentation, flip=flip)))
