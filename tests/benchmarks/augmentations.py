"""Training images a second with each kind of augmentation, beside the default: crop, mirroring and cutout.

On one thread, for several would wait for one another wherever other work has a core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from datasets.augmentation import Augmentation
from datasets.augmented_sheet import kinds
from datasets.batches import ImageBatches
from datasets.catalog import load_images
from datasets.store import ImageStore
from datasets.store_writer import write_image_store
from tests.benchmarks.side_by_side import side_by_side

SHAPE = (32, 32, 3)
COUNT, BATCH_SIZE = 2048, 128
DEFAULT = Augmentation(crop_padding=4, flip=True, cutout=8)


def main() -> None:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _measure()
    finally:
        torch.set_num_threads(num_threads)


def _measure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        batches = ImageBatches.load(noise(Path(folder)), "train", device="cpu")

    def shown(augmentation: Augmentation) -> Callable[[], object]:
        options = {"batch_size": BATCH_SIZE, "seed": 0, "epoch": 0}
        return lambda: [None for _ in batches.epoch(**options, augmentation=augmentation)]

    ways = {"default: crop, mirroring, cutout": DEFAULT, **kinds(SHAPE)}
    side_by_side(
        f"augmentation: {COUNT} images {'×'.join(map(str, SHAPE))}, batches of {BATCH_SIZE}",
        {name: shown(augmentation) for name, augmentation in ways.items()},
        per_call=COUNT,
        unit="images",
    )


def noise(folder: Path) -> ImageStore:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
    splits = {"train": (images, np.arange(COUNT) % 10)}
    classes = [str(number) for number in range(10)]
    write_image_store(folder / "noise.h5", name="noise", splits=splits, classes=classes, source="", licence="")
    return load_images(str(folder / "noise.h5"))
