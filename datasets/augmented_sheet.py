"""A sheet of augmented images, as training shows them: with one augmentation, or a row for each kind."""

# B images of the sheet, H W C an image

from __future__ import annotations

import typing
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.augmentation import Augmentation, AugmentationError
from datasets.augmenter import Augmenter
from datasets.contact_sheet import draw_rows, short_name
from datasets.store import ImageStore
from foundation.document import Problems, read_dataclass, value_of_text

_PREFIX = "training.augmentation."
_MOST_ROWS = 20


def augmentation_of(assignments: Sequence[str]) -> Augmentation:
    """Returns the augmentation of KEY=VALUE pairs, with keys as in `enas retrain --set`, or without their prefix.

    Raises: DocumentError: an unknown key, or a value of the wrong type or out of range.
    """
    types, values = typing.get_type_hints(Augmentation), {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        name = key.strip().removeprefix(_PREFIX)
        values[name] = value_of_text(text.strip(), types.get(name, str))
    problems = Problems("--set")
    augmentation = read_dataclass(Augmentation, values, place="", problems=problems)
    problems.raise_if_any()
    assert augmentation is not None
    return augmentation


def augmented_sheet(
    store: ImageStore, split: str, *, augmentation: Augmentation | None, num_columns: int
) -> Image.Image:
    """Draws a row for each class, at most 20: its first image, unchanged and augmented. Without an augmentation, a row
    for each kind that can be applied to these images.

    Raises: AugmentationError: it cannot be applied to these images. StoreError: the store has no such split.
    """
    labels = store.labels(split)
    classes = np.unique(labels)
    first = [int(np.flatnonzero(labels == label)[0]) for label in classes]
    found = dict(zip(first, store.take(split, np.array(first)), strict=True))
    if augmentation is None:
        several = [found[number] for number in np.resize(first, num_columns).tolist()]
        rows = [("as they are", several)]
        for name, kind in kinds(store.image_shape).items():
            with suppress(AugmentationError):  # the images are too small, or have too few classes
                rows.append((name, _augmented(several, kind, store)))
        return draw_rows(rows, image_shape=store.image_shape)
    shown, num_views = first[:_MOST_ROWS], max(1, num_columns - 1)
    repeated = [found[number] for number in shown for _ in range(num_views)]
    views = _augmented(repeated, augmentation, store)
    rows = []
    for row, (label, number) in enumerate(zip(classes.tolist(), shown, strict=False)):
        start = row * num_views
        rows.append((short_name(store.classes[label]), [found[number], *views[start : start + num_views]]))
    return draw_rows(rows, image_shape=store.image_shape)


def kinds(image_shape: tuple[int, int, int]) -> dict[str, Augmentation]:
    """Returns settings as text -> augmentation: each kind alone, with a usual strength for images [H, W, C]."""
    side = min(image_shape[:2])
    alone = [
        Augmentation(crop_padding=max(1, side // 8)),
        Augmentation(crop_padding=max(1, side // 8), crop_border="black"),
        Augmentation(flip=True),
        Augmentation(trivial_augment=True),
        Augmentation(resized_crop=0.25),
        Augmentation(rotation=15.0),
        Augmentation(shear=15.0),
        Augmentation(scale=0.25),
        Augmentation(brightness=0.4),
        Augmentation(contrast=0.4),
        Augmentation(colour=0.8),
        Augmentation(cutout=max(1, side // 4)),
        Augmentation(erase_prob=1.0),
        Augmentation(mixup=1.0),
        Augmentation(cutmix=1.0),
    ]
    plain = asdict(Augmentation())
    settings = [{key: value for key, value in asdict(one).items() if value != plain[key]} for one in alone]
    texts = [" ".join(f"{key}={str(value).lower()}" for key, value in one.items()) for one in settings]
    return dict(zip(texts, alone, strict=True))


def _augmented(pictures: Sequence[np.ndarray], augmentation: Augmentation, store: ImageStore) -> list[np.ndarray]:
    """Returns the pictures uint8 [H, W, C] as training would show them in one batch."""
    augmentation.check(image_shape=store.image_shape, num_classes=len(store.classes))
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (store.mean, store.std))

    def normalise(pixels: Tensor) -> Tensor:
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    augmenter = Augmenter(
        augmentation,
        image_shape=store.image_shape,
        num_classes=len(store.classes),
        batch_size=len(pictures),
        count=len(pictures),
        seed=0,
        epoch=0,
        device=torch.device("cpu"),
    )
    images = augmenter.images(torch.from_numpy(np.stack(pictures)), 0, normalise=normalise)
    images, _ = augmenter.mixed(images, torch.zeros(len(images), dtype=torch.int64), 0)
    pixels = (images.permute(0, 2, 3, 1) * std + mean).mul(255).round().clamp(0, 255).byte()
    return list(pixels.numpy())
