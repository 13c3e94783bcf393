"""Augmentation of a batch of images on its device, with separate random values for each image.

The random values come from a numpy generator on the CPU, so that a step is the same on every device; a few operations
on the whole batch apply them.
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
    """An augmentation that is invalid or cannot be applied."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images, with separate random values for each image.

    Applied in the order of these fields, except that the shear comes before the rotation.
    """

    crop_padding: int = 0
    """Pixels added to every side before a window of the image's size is cut at random; at most the larger side of the
    image, or, with a black border, its smaller side minus 1; 0: no crop."""
    crop_border: Literal["mirrored", "black"] = "mirrored"
    """The added pixels: the image mirrored at its border, or black, which photographs do not have at their borders."""
    flip: bool = False
    """Mirror left to right with probability one half."""
    trivial_augment: bool = False
    """One of 14 operations at a random strength, see `trivial_augment`. Source: Müller and Hutter 2021,
    arXiv:2103.10158."""
    resized_crop: float = 0.0
    """Least share of the image's area, above 0 and up to 1, of a window that is resized to the image's size; its aspect
    is 3/4 to 4/3 times the image's; 0: none. For photographs: 0.08. Source: Szegedy et al. 2015, arXiv:1409.4842."""
    rotation: float = 0.0
    """Greatest angle in either direction, in degrees. Here and in the next two, the area outside the image is black and
    values between pixels are interpolated. Source: Simard et al. 2003, "Best practices for convolutional neural
    networks"."""
    shear: float = 0.0
    """Greatest angle by which vertical lines lean in either direction, in degrees below 90."""
    scale: float = 0.0
    """Greatest enlargement or reduction: the factor is from 1 / (1 + scale) to 1 + scale."""
    brightness: float = 0.0
    """Greatest deviation from 1 of the factor on pixels. Source of this and the next two: Howard 2013,
    arXiv:1312.5402."""
    contrast: float = 0.0
    """Greatest deviation from 1 of the factor on the difference between pixels and the image's mean grey."""
    colour: float = 0.0
    """Greatest deviation from 1 of the factor on the difference between pixels and their own grey; without effect on
    grey images."""
    cutout: int = 0
    """Side in pixels of a square set to the mean (zero after normalisation); its centre is uniform over the image, and
    parts outside the image are ignored; 0: no cutout. Source: DeVries and Taylor 2017, arXiv:1708.04552."""
    erase_prob: float = 0.0
    """Probability that normal noise with the variance of the data replaces a rectangle of the image; its area, aspect
    and place are drawn as in Zhong et al. 2017, arXiv:1708.04896."""
    erase_area: float = 0.33
    """Greatest share of the image that is erased; the least is 0.02."""
    mixup: float = 0.0
    """α of the Beta distribution of an image's share in the mean with another image of the batch; labels are mixed with
    the same share; 0: none. Source: Zhang et al. 2018, arXiv:1710.09412; there 1 on small images, 0.2 on
    photographs."""
    cutmix: float = 0.0
    """α of the Beta distribution of the share of an image that remains, while a rectangle of another image of the batch
    replaces the rest; 0: none. Each image undergoes either mixup or cutmix. Source: Yun et al. 2019, arXiv:1905.04899;
    there 1."""

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
        """Raises: AugmentationError: it cannot be applied to images of this shape [H, W, C], or to so few classes."""
        height, width, _ = image_shape
        if self.cutout > max(height, width):
            raise AugmentationError(f"cutout is {self.cutout}, larger than the pictures of {height}×{width}")
        # With a padding below the smaller side, every crop contains a part of the picture. A mirrored border contains
        # the picture too, so even pictures of a single row can be padded like others.
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
        """Whether images stay unchanged in every epoch."""
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
    """Draws the random choices for each image of a batch of `shape` [B, H, W, C]: int64 [10, B].

    Rows: the crop's top and left, mirrored or not, the cutout's top and left, the erased rectangle's top, left, height
    and width (both 0 if nothing is erased), and the start of its noise in `draw_noise`.
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
    """Draws the noise of an epoch, float32 [2*H*W*C]; an image uses a run of H*W*C values from its drawn start."""
    return torch.from_numpy(generator.standard_normal(2 * int(np.prod(shape)), dtype=np.float32))


def crop_and_flip(pixels: Tensor, choices: Tensor, augmentation: Augmentation) -> Tensor:
    """Crops and mirrors images uint8 [B, H, W, C]; the shape stays the same.

    One buffer contains the plain and the mirrored images, padded; each row of a result is a run of W*C of its bytes. So
    a batch is always one gather of B*H runs: 0.23 ms for 128 images 32×32×3 on two cores.
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
    """Write the picture, mirrored at its border, to the first and the last `padding` places of an axis."""
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
    """Returns the runs of `length` that start at each place of `values` [N], as a view [N - length + 1, length]."""
    return values.as_strided((len(values) - length + 1, length), (1, 1))
