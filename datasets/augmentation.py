"""Augmentation of a batch of images on its device, each image drawing for itself.

What is drawn comes from a numpy generator on the CPU, so that a step looks the same on every device; what is done with
it are a few operations on the whole batch.
"""

# B batch, H W C an image's height, width and channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

LEAST_ERASED = 0.02
"""Least share of an image that is erased."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Least and greatest ratio of an erased rectangle's height to its width."""


class AugmentationError(ValueError):
    """An augmentation that cannot be done."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a batch of training images, in the order of these fields; each image draws for itself."""

    crop_padding: int = 0
    """Pixels added on every side before a window of the image's size is cut at random, at most the image's larger side,
    or, of black ones, one less than its smaller side; 0: no crop."""
    crop_border: Literal["mirrored", "black"] = "mirrored"
    """What these pixels are: the image, mirrored at its border, or black, which photographs have not at theirs."""
    flip: bool = False
    """Mirror left to right with probability one half."""
    trivial_augment: bool = False
    """One of 14 operations at a random strength, see `trivial_augment`. Source: Müller and Hutter 2021,
    arXiv:2103.10158."""
    resized_crop: float = 0.0
    """Least share of the area, above 0 and up to 1, of a window that is brought to the image's size, with an aspect of
    3/4 to 4/3 times the image's; 0: none. For photographs: 0.08. Source: Szegedy et al. 2015, arXiv:1409.4842."""
    rotation: float = 0.0
    """Greatest angle either way, in degrees; what lies outside the image is black, and between pixels is interpolated,
    as with the next two. Source: Simard et al. 2003, "Best practices for convolutional neural networks"."""
    shear: float = 0.0
    """Greatest angle by which upright lines lean either way, in degrees below 90."""
    scale: float = 0.0
    """Greatest enlargement beyond 1, and reduction: the factor is from 1 / (1 + scale) to 1 + scale."""
    brightness: float = 0.0
    """Greatest change of the factor 1 on pixels. Source of this and the next two: Howard 2013, arXiv:1312.5402."""
    contrast: float = 0.0
    """Greatest change of the factor 1 on pixels' difference from the image's mean grey."""
    colour: float = 0.0
    """Greatest change of the factor 1 on pixels' difference from their own grey; without effect on grey images."""
    cutout: int = 0
    """Side in pixels of a square set to the mean (zero after normalisation), its centre uniform over the image and its
    parts outside dropped; 0: no cutout. Source: DeVries and Taylor 2017, arXiv:1708.04552."""
    erase_prob: float = 0.0
    """Probability with which a rectangle of the image is replaced by noise, normal and of the data's variance; its
    area, its aspect and its place are drawn as in Zhong et al. 2017, arXiv:1708.04896."""
    erase_area: float = 0.33
    """Greatest share of the image that is erased; the least is 0.02."""
    mixup: float = 0.0
    """α of the Beta distribution of an image's share in a mean with another of its batch, whose label counts alike; 0:
    none. Source: Zhang et al. 2018, arXiv:1710.09412; there 1 on small images, 0.2 on photographs."""
    cutmix: float = 0.0
    """α of the Beta distribution of the share of an image that is not replaced by a rectangle of another of its batch;
    0: none. An image takes part in one of mixup and cutmix. Source: Yun et al. 2019, arXiv:1905.04899; there 1."""

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            if getattr(self, name) < 0:
                raise AugmentationError(f"{name} is {getattr(self, name)}, expected a number of pixels, 0 or more")
        for name, (least, most, what) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                expected = f"expected {what}, {least:g} to {most:g}"
                raise AugmentationError(f"{name} is {getattr(self, name)}, {expected}")
        if self.crop_padding and self.resized_crop:
            raise AugmentationError("crop_padding and resized_crop exclude each other; set one of them to 0")

    def check(self, *, image_shape: Sequence[int], num_classes: int) -> None:
        """Raises: AugmentationError: it cannot be done to such images [H, W, C], or of so few classes."""
        height, width, _ = image_shape
        if self.cutout > max(height, width):
            raise AugmentationError(f"cutout is {self.cutout}, larger than the pictures of {height}×{width}")
        # Of a smaller padding than the smaller side every crop shows a part of the picture. A mirrored border shows the
        # picture, too, and pictures of one row are padded as others.
        is_black = self.crop_border == "black"
        most = min(height, width) - 1 if is_black else max(height, width)
        if self.crop_padding > most:
            border = "with a black border " if is_black else ""
            pictures = f"{border}pictures of {height}×{width}"
            raise AugmentationError(f"crop_padding is {self.crop_padding}; {pictures} take at most {most}")
        if self.mixes and num_classes < 2:
            name = "mixup" if self.mixup else "cutmix"
            raise AugmentationError(f"{name} mixes images of different classes, but the data set has {num_classes}")

    @property
    def changes_nothing(self) -> bool:
        """Whether every epoch shows an image as it is."""
        return self == Augmentation(erase_area=self.erase_area, crop_border=self.crop_border)

    @property
    def mixes(self) -> bool:
        """Whether a label becomes a share of each class."""
        return self.mixup > 0 or self.cutmix > 0


_PROBABILITY, _FACTOR, _ALPHA = (0.0, 1.0, "a probability"), (0.0, 1.0, "a part of 1"), (0.0, 100.0, "an α")
_RANGES = {
    "resized_crop": (0.0, 1.0, "a share of the area"),
    "rotation": (0.0, 180.0, "degrees"),
    "shear": (0.0, 85.0, "degrees"),
    "scale": (0.0, 10.0, "a part of 1"),
    "brightness": _FACTOR,
    "contrast": _FACTOR,
    "colour": _FACTOR,
    "erase_prob": _PROBABILITY,
    "erase_area": (LEAST_ERASED, 1.0, "a share of the picture"),
    "mixup": _ALPHA,
    "cutmix": _ALPHA,
}


def draw(generator: np.random.Generator, augmentation: Augmentation, shape: Sequence[int]) -> Tensor:
    """What each image of a batch of `shape` [B, H, W, C] draws: int64 [10, B].

    By rows: the crop's top and left, mirrored or not, the cutout's top and left, the erased rectangle's top, left,
    height and width (0 where nothing is erased), and where its noise begins.
    """
    batch, height, width, channels = shape
    offsets = 2 * augmentation.crop_padding + 1
    choices = np.zeros((10, batch), dtype=np.int64)
    for row, bound in enumerate((offsets, offsets, 1 + augmentation.flip, height, width)):
        choices[row] = generator.integers(0, bound, batch)
    choices[3:5] -= augmentation.cutout // 2
    if augmentation.erase_prob:
        erased = generator.random(batch) < augmentation.erase_prob
        area = generator.uniform(LEAST_ERASED, augmentation.erase_area, batch) * height * width
        low, high = np.log(ERASED_ASPECT)
        aspect = np.exp(generator.uniform(low, high, batch))
        tall = np.clip(np.rint(np.sqrt(area * aspect)), 1, height)
        wide = np.clip(np.rint(np.sqrt(area / aspect)), 1, width)
        choices[5] = generator.random(batch) * (height - tall + 1)
        choices[6] = generator.random(batch) * (width - wide + 1)
        choices[7:9] = np.stack([tall, wide]) * erased
        choices[9] = generator.integers(0, height * width * channels, batch)
    return torch.from_numpy(choices)


def draw_noise(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """The noise of an epoch, float32 [2*H*W*C]: an image takes a run of H*W*C of it, from where it drew on."""
    return torch.from_numpy(generator.standard_normal(2 * int(np.prod(shape)), dtype=np.float32))


def crop_and_flip(pixels: Tensor, choices: Tensor, augmentation: Augmentation) -> Tensor:
    """uint8 [B, H, W, C], the same shape after.

    Plain and mirrored images stand padded in one buffer; a row of a result is a run of W*C of its bytes, so whatever
    was drawn, a batch is one gather of B*H runs: 0.23 ms for 128 images 32×32×3 on two cores.
    """
    batch, height, width, channels = pixels.shape
    padding = augmentation.crop_padding
    padded = pixels.new_zeros(1 + augmentation.flip, batch, height + 2 * padding, width + 2 * padding, channels)
    inner = padded[:, :, padding : padding + height, padding : padding + width]
    inner[0] = pixels
    if augmentation.flip:
        inner[1] = pixels.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)  # flip is fastest on a channels_last view
    if augmentation.crop_border == "mirrored":
        _mirror_at_border(padded, padding, axis=2)
        _mirror_at_border(padded, padding, axis=3)

    top, left, flipped = choices[:3, :, None]  # [B, 1] each
    image = torch.arange(batch, device=pixels.device)[:, None] + flipped * batch
    row = image * padded.shape[2] + top + torch.arange(height, device=pixels.device)  # [B, H]
    starts = (row * padded.shape[3] + left) * channels
    return _runs(padded.view(-1), width * channels).index_select(0, starts.flatten()).view(pixels.shape)


def _mirror_at_border(padded: Tensor, padding: int, *, axis: int) -> None:
    """Write what lies within the first and the last `padding` places of an axis: the picture, mirrored."""
    first, last = padding, padded.shape[axis] - padding - 1
    for away in range(1, padding + 1):
        back = min(away, last - first)
        padded.select(axis, first - away).copy_(padded.select(axis, first + back))
        padded.select(axis, last + away).copy_(padded.select(axis, last - back))


def cut_out(images: Tensor, choices: Tensor, side: int) -> None:
    """Set a square of each image [B, C, H, W], channels_last, to zero, in place."""
    top, left = choices[3:5]
    # Products of floats: filling under a boolean mask takes seven times as long.
    images.permute(0, 2, 3, 1).flatten(2).mul_(1 - inside(images, top, left, top + side, left + side))


def erase(images: Tensor, choices: Tensor, noise: Tensor) -> None:
    """Replace a rectangle of each image [B, C, H, W], channels_last, by noise [2*H*W*C], in place."""
    top, left, height, width, start = choices[5:]
    rows = images.permute(0, 2, 3, 1).flatten(2)  # [B, H, W*C]
    fill = _runs(noise, rows[0].numel()).index_select(0, start).view(rows.shape)
    rows.lerp_(fill, inside(images, top, left, top + height, left + width))


def inside(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """1 inside a rectangle of each image [B, C, H, W], 0 outside: float32 [B, H, W*C]."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device).repeat_interleave(images.shape[1])
    inside_y = (y >= top[:, None]) & (y < bottom[:, None])  # [B, H]
    inside_x = (x >= left[:, None]) & (x < right[:, None])  # [B, W*C]
    return inside_y.float()[:, :, None] * inside_x.float()[:, None]


def _runs(values: Tensor, length: int) -> Tensor:
    """The run of `length` that starts at each place of `values` [N]: a view [N - length + 1, length]."""
    return values.as_strided((len(values) - length + 1, length), (1, 1))
