"""Augmented images a second: batched, and image by image with Pillow as common input pipelines do it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps

from datasets.augmentation import Augmentation
from datasets.batches import ImageBatches
from datasets.catalog import load
from datasets.store import ImageStore
from tests.benchmarks.side_by_side import side_by_side

PADDING = 4
BATCH_SIZE = 128


def main() -> None:
    store = load("fashion-mnist-mini")
    assert isinstance(store, ImageStore)
    batches = ImageBatches.load(store, "valid", device="cpu")
    images = store.images("valid")
    rng = np.random.default_rng(0)

    def batched() -> None:
        augmentation = Augmentation(crop_padding=PADDING, flip=True)
        for _ in batches.epoch(batch_size=BATCH_SIZE, seed=0, epoch=0, augmentation=augmentation):
            pass

    def one_by_one() -> None:
        for start in range(0, len(images), BATCH_SIZE):
            tensors = [augmented(image) for image in images[start : start + BATCH_SIZE]]
            torch.stack(tensors).sub_(store.mean[0]).div_(store.std[0])

    def augmented(image: np.ndarray) -> torch.Tensor:
        height, width, _ = image.shape
        picture = ImageOps.expand(Image.fromarray(image[:, :, 0]), PADDING)
        left, top = rng.integers(0, 2 * PADDING + 1, 2)
        picture = picture.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]

    side_by_side(
        f"crop, flip, normalise: {len(images)} images 28×28×1, batches of {BATCH_SIZE}",
        {"image by image with Pillow": one_by_one, "batched": batched},
        per_call=len(images),
        unit="images",
    )
