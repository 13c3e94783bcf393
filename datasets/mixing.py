"""Mixup and cutmix: mixes the images of a batch with each other, and their labels with the same shares."""

# B batch, H W C an image's height, width and channels, K classes

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.augmentation import Augmentation, inside


def draw_mixing(generator: np.random.Generator, augmentation: Augmentation, shape: Sequence[int]) -> Tensor:
    """Draws the random choices for each image of a batch of `shape` [B, H, W, C]: float32 [6, B].

    Rows: the index in the batch of the image to mix with; that image's share in the mean, 0 if a rectangle is used
    instead; and the rectangle's top, left, bottom and right, all 0 if there is none.
    """
    batch, height, width, _ = shape
    drawn = np.zeros((6, batch))
    drawn[0] = generator.permutation(batch)
    is_cut = generator.random(batch) < (0.5 if augmentation.mixup else 1.0)
    if augmentation.mixup:
        drawn[1] = 1 - generator.beta(augmentation.mixup, augmentation.mixup, batch)
    if augmentation.cutmix:
        side = np.sqrt(1 - generator.beta(augmentation.cutmix, augmentation.cutmix, batch))
        for row, length in ((2, height), (3, width)):
            middle = generator.integers(0, length, batch)
            half = np.floor(side * length / 2)
            drawn[row] = np.clip(middle - half, 0, length) * is_cut
            drawn[row + 2] = np.clip(middle + half, 0, length) * is_cut
        drawn[1] *= ~is_cut
    return torch.from_numpy(drawn.astype(np.float32))


def mix(images: Tensor, labels: Tensor, drawn: Tensor, *, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix images [B, C, H, W], channels_last, with labels int64 [B]; the labels become shares of classes [B, K]."""
    partner, share, (top, left, bottom, right) = drawn[0].long(), drawn[1], drawn[2:]
    height, width = images.shape[2:]
    rows = images.permute(0, 2, 3, 1).flatten(2)  # [B, H, W*C]
    weights = inside(images, top, left, bottom, right).add_(share[:, None, None])
    mixed = rows.lerp(rows.index_select(0, partner), weights)
    whole = (share + (bottom - top) * (right - left) / (height * width))[:, None]
    shown = functional.one_hot(labels, num_classes).float()
    shape = (len(images), height, width, images.shape[1])
    return mixed.view(shape).permute(0, 3, 1, 2), shown.lerp(shown.index_select(0, partner), whole)
