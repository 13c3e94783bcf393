"""Operations that change the colours of a batch of pictures, but not the position of pixels.

Pictures and results are float32 [B, H, W, C], 0 to 255; grey pictures have one channel. Each operation equals Pillow's
in `ImageEnhance` or `ImageOps`, without rounding in between.
"""

# B batch, H W C a picture's height, width and channels

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.augmentation import Augmentation

_LUMINANCE = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


def recolours(augmentation: Augmentation) -> bool:
    """Whether the augmentation draws factors."""
    return any((augmentation.brightness, augmentation.contrast, augmentation.colour))


def draw_factors(generator: np.random.Generator, augmentation: Augmentation, shape: Sequence[int]) -> Tensor:
    """Factors of brightness, contrast and colour for a batch of `shape` [B, H, W, C]: float32 [3, B]."""
    bounds = np.array([[augmentation.brightness], [augmentation.contrast], [augmentation.colour]])
    return torch.from_numpy(generator.uniform(1 - bounds, 1 + bounds, (3, shape[0])).astype(np.float32))


def recolour(pixels: Tensor, factors: Tensor, augmentation: Augmentation) -> Tensor:
    """Changes brightness, then contrast, then colour by factors [3, B], except those that the augmentation omits."""
    for change, bound, factor in (
        (brighten, augmentation.brightness, factors[0]),
        (stretch, augmentation.contrast, factors[1]),
        (saturate, augmentation.colour, factors[2]),
    ):
        if bound:
            pixels = change(pixels, factor)
    return pixels


def brighten(pixels: Tensor, factor: Tensor) -> Tensor:
    """Changes the brightness. factor: [B]; 0 gives black."""
    return (pixels * _each(factor)).clamp_(0, 255)


def stretch(pixels: Tensor, factor: Tensor) -> Tensor:
    """Changes the contrast. factor: [B]; 0 gives the mean grey."""
    return _blend(_grey(pixels).mean((1, 2, 3), keepdim=True), pixels, factor)


def saturate(pixels: Tensor, factor: Tensor) -> Tensor:
    """Changes the saturation. factor: [B]; 0 gives grey."""
    return pixels if pixels.shape[3] == 1 else _blend(_grey(pixels), pixels, factor)


def sharpen(pixels: Tensor, factor: Tensor) -> Tensor:
    """Changes the sharpness; the border stays unchanged.

    factor: [B]; 0 gives a blurred picture, in which a pixel has weight 5 and each of its 8 neighbours weight 1.
    """
    planes = pixels.permute(0, 3, 1, 2)
    blurred = planes.clone()
    if min(planes.shape[2:]) > 2:
        inner = planes[:, :, 1:-1, 1:-1]
        blurred[:, :, 1:-1, 1:-1] = (9 * functional.avg_pool2d(planes, 3, stride=1) + 4 * inner) / 13
    return _blend(blurred.permute(0, 2, 3, 1), pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of whole numbers. bits: [B], 1 to 8."""
    step = _each(2 ** (8 - bits))
    return (pixels / step).floor_() * step


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above a threshold [B]."""
    return torch.where(pixels < _each(threshold), pixels, 255 - pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each channel to the range 0 to 255; a channel with a single value stays unchanged."""
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (pixels - low) * (255 / span.clamp_min(1e-6)), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Equalise the histogram of each channel of whole numbers."""
    batch, height, width, channels = pixels.shape
    values = pixels.permute(0, 3, 1, 2).reshape(batch * channels, height * width).long()
    counts = values.new_zeros(batch * channels, 256).scatter_add_(1, values, torch.ones_like(values))
    highest = 255 - (counts.flip(1) > 0).int().argmax(1, keepdim=True)
    step = (height * width - counts.gather(1, highest)) // 255  # [B*C, 1]
    before = counts.cumsum(1) - counts
    table = ((step // 2 + before) // step.clamp_min(1)).clamp_(max=255)
    found = torch.where(step > 0, table.gather(1, values), values)
    return found.view(batch, channels, height, width).permute(0, 2, 3, 1).float()


def _blend(base: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    return (base + (pixels - base) * _each(factor)).clamp_(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    """[B, H, W, 1]"""
    return pixels if pixels.shape[3] == 1 else (pixels * pixels.new_tensor(_LUMINANCE)).sum(3, keepdim=True)


def _each(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]"""
    return values.view(-1, 1, 1, 1)
