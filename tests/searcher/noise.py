"""A learner of a few images of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from searcher.training.distillation import Distillation
from searcher.training.image_learner import ImageLearner, ImageTraining


def noise_learner(tmp_path: Path, *, device: str = "cpu", training: ImageTraining | None = None) -> ImageLearner:
    """Of 12 training and 7 validation images of noise; four are a reward batch."""
    rng = np.random.default_rng(0)
    splits = {
        split: (rng.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8), np.arange(count) % 3)
        for split, count in (("train", 12), ("valid", 7), ("test", 7))
    }
    write_image_store(
        tmp_path / "noise.h5", name="noise", splits=splits, classes=("a", "b", "c"), source="made up", licence="CC0-1.0"
    )
    return learner_of(tmp_path / "noise.h5", device=device, training=training)


def learner_of(
    path: Path,
    *,
    device: str = "cpu",
    training: ImageTraining | None = None,
    memory_budget_mb: int = 64,
    distillation: Distillation | None = None,
) -> ImageLearner:
    return ImageLearner(
        training or ImageTraining(),
        store=load_images(str(path)),
        train_on="train",
        batch_size=4,
        reward_batch_size=4,
        seed=0,
        device=torch.device(device),
        memory_budget_mb=memory_budget_mb,
        precision="auto",
        distillation=distillation,
    )
