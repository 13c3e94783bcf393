"""Who decides whether training mirrors pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datasets.store import ImageStore
from exporter.retraining.config import RetrainConfig
from exporter.retraining.presets import retrain_preset
from foundation.document import ConfigError
from searcher.training.mirroring import decide_flip
from tests.datasets.test_mirroring import arrow, drawn, shoe

PRESET = retrain_preset("micro", "quick")
CONFUSED = "look like each other's mirrored"


@pytest.fixture(scope="module")
def arrows(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return drawn(tmp_path_factory.mktemp("data") / "arrows.h5", arrow, count=200, num_classes=2)


@pytest.fixture(scope="module")
def shoes(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return drawn(tmp_path_factory.mktemp("data") / "shoes.h5", shoe, count=160, num_classes=3)


def decided(store: ImageStore, *, config: RetrainConfig = PRESET, **options: bool | None) -> tuple[bool, list[str]]:
    """Whether pictures are mirrored, and what the user is told."""
    lines: list[str] = []
    options = {"flip": None, **options}
    found = decide_flip(config, store, say=lines.append, **options)  # type: ignore[arg-type]
    flip = found.training.augmentation.flip
    augmentation = replace(PRESET.training.augmentation, flip=flip)
    assert found == replace(PRESET, training=replace(PRESET.training, augmentation=augmentation))  # and nothing else
    return flip, lines


def test_a_preset_does_not_mirror_what_looks_like_another_class_mirrored(arrows: ImageStore) -> None:
    flip, (line,) = decided(arrows)
    assert not flip
    assert CONFUSED in line
    assert line.endswith(": pictures are not mirrored in training; --flip mirrors them all the same")


def test_a_preset_mirrors_what_does_not(shoes: ImageStore) -> None:
    assert decided(shoes) == (True, [])


def test_the_users_word_counts_without_another(arrows: ImageStore, shoes: ImageStore) -> None:
    assert decided(arrows, flip=True) == (True, [])
    assert decided(shoes, flip=False) == (False, [])


def test_settings_of_the_users_own_are_only_warned_of(arrows: ImageStore) -> None:
    flip, (line,) = decided(arrows, is_own=True)
    assert flip
    assert CONFUSED in line
    assert line.endswith(": if left and right matter, train with --no-flip")


def test_retraining_mirrors_no_more_than_the_search_did(shoes: ImageStore) -> None:
    flip, (line,) = decided(shoes, searched_without=True)
    assert not flip
    assert line == "pictures are not mirrored, as they were not in the search; --flip mirrors them"
    assert decided(shoes, searched_without=True, flip=True) == (True, [])


def test_a_text_is_not_mirrored(arrows: ImageStore) -> None:
    text = retrain_preset("recurrent", "quick")
    assert decide_flip(text, arrows, flip=None, say=print) == text
    with pytest.raises(ConfigError, match="--flip and --no-flip are for pictures"):
        decide_flip(text, arrows, flip=False, say=print)
