"""A tiny data set and tiny settings, for whole runs in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from datasets.batches import Augmentation
from datasets.store_writer import write_image_store
from exporter.presets import retrain_preset
from searcher.arch.document import write_dataclass
from searcher.arch.micro import MicroSize, MicroSpace
from searcher.presets.catalog import search_preset
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining

CLASSES = ("bar", "dot", "blank")


def tiny_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bar, a dot, or neither: uint8 [count, 8, 8, 1] and labels [count]."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images[labels == 0, :, 3:5] = 250
    images[labels == 1, 2:5, 2:5] = 200
    return images, labels


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shapes.h5"
    splits = {"train": tiny_images(96, 0), "valid": tiny_images(33, 1), "test": tiny_images(41, 2)}
    write_image_store(path, name="shapes", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")
    return path


@pytest.fixture(scope="session")
def search_config(tmp_path_factory: pytest.TempPathFactory, store_path: Path) -> Path:
    config = replace(
        search_preset("micro", "quick", image_size=8),
        dataset=str(store_path),
        num_epochs=3,
        batch_size=16,
        search_space=MicroSpace(2),
        network=MicroSize(cells=3, channels=4),
        final_network=MicroSize(cells=3, channels=4),
        training=ImageTraining(
            augmentation=Augmentation(crop_padding=1, flip=True), dropout_prob=0.1, auxiliary_weight=0.2
        ),
        policy_start_epoch=0,
        policy_steps=2,
        policy_samples=3,
        control_samples=2,
        reward_batch_size=16,
        derivation=DeriveConfig(num_samples=5, num_batches=2, num_finalists=2),
    )
    path = tmp_path_factory.mktemp("config") / "search.toml"
    path.write_text(tomli_w.dumps(write_dataclass(config)))
    return path


@pytest.fixture(scope="session")
def retrain_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = retrain_preset("micro", "standard")
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=2)
    training = replace(config.training, augmentation=augmentation)
    config = replace(config, num_epochs=3, batch_size=16, training=training, ema_decay=0.5)
    path = tmp_path_factory.mktemp("config") / "retrain.toml"
    path.write_text(tomli_w.dumps(write_dataclass(config)))
    return path


def enas(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, on one thread."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), timeout=240, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "enas", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
