"""The augmentation of an epoch: the random values of all its batches, and the order of operations on a batch.

All values are drawn at once on the CPU, because a copy to the device at every step would wait for the step before. Each
kind draws from its own random stream, so that one kind does not change the values of another.
"""

# B batch, H W C an image's height, width and channels, K classes

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.augmentation import Augmentation, crop_and_flip, cut_out, draw, draw_noise, erase
from datasets.colours import draw_factors, recolour, recolours
from datasets.mixing import draw_mixing, mix
from datasets.trivial_augment import apply_trivial, draw_trivial
from datasets.warps import draw_warps, warp, warps
from foundation.seeds import numpy_generator

_Draw = Callable[[np.random.Generator, Augmentation, Sequence[int]], Tensor]


class Augmenter:
    """Augments the batches of one epoch, given the number of their step."""

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        batch_size: int,
        count: int,
        seed: int,
        epoch: int,
        device: torch.device,
    ) -> None:
        """image_shape: H, W, C. count: images of the epoch."""
        self._augmentation = augmentation
        self._num_classes = num_classes
        self._batch_size = batch_size
        shapes = [(min(batch_size, count - start), *image_shape) for start in range(0, count, batch_size)]

        def drawn(stream: str, of: _Draw, *, axis: int) -> Tensor:
            parts = [
                of(numpy_generator(seed, stream, epoch, step), augmentation, shape) for step, shape in enumerate(shapes)
            ]
            return torch.cat(parts, dim=axis).to(device)

        self._choices = drawn("augment", draw, axis=1)
        self._noise = draw_noise(numpy_generator(seed, "noise", epoch), image_shape).to(device)
        self._warps = drawn("warp", draw_warps, axis=0) if warps(augmentation) else None
        self._factors = drawn("colour", draw_factors, axis=1) if recolours(augmentation) else None
        self._mixing = drawn("mix", draw_mixing, axis=1) if augmentation.mixes else None
        self._trivial = [
            draw_trivial(numpy_generator(seed, "trivial", epoch, step), shape).to(device)
            for step, shape in enumerate(shapes if augmentation.trivial_augment else [])
        ]

    def images(self, pixels: Tensor, step: int, *, normalise: Callable[[Tensor], Tensor]) -> Tensor:
        """Augments a batch uint8 [B, H, W, C] without mixing it; returns float32 [B, C, H, W].

        normalise: maps pixels of any type, 0 to 255, to images in channels_last memory.
        """
        augmentation, here = self._augmentation, self._here(step)
        choices = self._choices[:, here]
        pixels = crop_and_flip(pixels, choices, augmentation)
        if self._trivial:
            pixels = apply_trivial(pixels, self._trivial[step])
        if self._warps is not None:
            pixels = warp(pixels, self._warps[here])
        if self._factors is not None:
            pixels = recolour(pixels.float(), self._factors[:, here], augmentation)
        images = normalise(pixels)
        if augmentation.cutout:
            cut_out(images, choices, augmentation.cutout)
        if augmentation.erase_prob:
            erase(images, choices, self._noise)
        return images

    def mixed(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mixes images and labels int64 [B] if the augmentation does; mixed labels are shares float32 [B, K]."""
        if self._mixing is None:
            return images, labels
        return mix(images, labels, self._mixing[:, self._here(step)], num_classes=self._num_classes)

    def _here(self, step: int) -> slice:
        return slice(step * self._batch_size, (step + 1) * self._batch_size)
