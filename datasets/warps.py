"""Rotates, shears, scales and crops pictures: one affine map for each picture, applied to a whole batch at once."""

# B batch, H W C a picture's height, width and channels

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.augmentation import Augmentation

_CROP_ASPECT = (3 / 4, 4 / 3)
"""Least and greatest ratio of a window's width to its height, both as fractions of the picture's sides."""


def warps(augmentation: Augmentation) -> bool:
    """Whether the augmentation warps pictures."""
    return any((augmentation.resized_crop, augmentation.rotation, augmentation.shear, augmentation.scale))


def draw_warps(generator: np.random.Generator, augmentation: Augmentation, shape: Sequence[int]) -> Tensor:
    """Draws the maps of a batch of `shape` [B, H, W, C], see `warp`: float32 [B, 2, 3].

    A window is cut out first; its content is then sheared, rotated and scaled about its centre.
    """
    batch, height, width, _ = shape
    angle = np.radians(generator.uniform(-augmentation.rotation, augmentation.rotation, batch))
    lean = np.radians(generator.uniform(-augmentation.shear, augmentation.shear, batch))
    bound = np.log1p(augmentation.scale)
    factor = np.exp(generator.uniform(-bound, bound, batch))
    maps = affine(turn=angle, lean_x=lean, factor=factor)
    if augmentation.resized_crop:
        area = generator.uniform(augmentation.resized_crop, 1, batch)
        low, high = np.log(_CROP_ASPECT)
        aspect = np.exp(generator.uniform(low, high, batch))
        sides = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect])), 1)  # [2, B], of the picture's x and y
        room = np.array([[width], [height]]) * (1 - sides)
        maps = maps * sides.T[:, :, None]
        maps[:, :, 2] += ((generator.random((2, batch)) - 0.5) * room).T
    return torch.from_numpy(maps.astype(np.float32))


def affine(
    *,
    turn: np.ndarray | float = 0.0,
    lean_x: np.ndarray | float = 0.0,
    lean_y: np.ndarray | float = 0.0,
    factor: np.ndarray | float = 1.0,
    shift_x: np.ndarray | float = 0.0,
    shift_y: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Returns maps for `warp`: float64 [B, 2, 3].

    A picture is sheared, rotated clockwise and scaled about its centre, then shifted to the right and down.
    Args: each [B], or one number for all pictures. turn, lean_x, lean_y: radians; lean_x moves the upper part to the
        left. shift_x, shift_y: pixels.
    """
    turn, lean_x, lean_y, factor, shift_x, shift_y = np.broadcast_arrays(turn, lean_x, lean_y, factor, shift_x, shift_y)
    sine, cosine = np.sin(turn), np.cos(turn)
    one = np.ones_like(sine)
    turned = _matrices(cosine, -sine, sine, cosine)
    sheared = _matrices(one, np.tan(lean_x), np.tan(lean_y), one)
    back = np.linalg.inv(factor[:, None, None] * (turned @ sheared))
    shift = np.stack([shift_x, shift_y], axis=-1)[:, :, None]
    return np.concatenate([back, -back @ shift], axis=2)


def warp(pixels: Tensor, maps: Tensor) -> Tensor:
    """Warps pictures [B, H, W, C], bytes or floats; returns float32 [B, H, W, C].

    Interpolates bilinearly between pixels; the area outside the picture is black.
    Args: maps: [B, 2, 3], from a pixel's position in the result to its source in the picture, (x, y) in pixels from
        the centre.
    """
    batch, height, width, channels = pixels.shape
    # affine_grid measures both sides from -1 to 1.
    half = maps.new_tensor([width / 2, height / 2])
    scaled = torch.cat([maps[:, :, :2] * half, maps[:, :, 2:]], dim=2) / half[:, None]
    grid = functional.affine_grid(scaled, [batch, channels, height, width], align_corners=False)
    planes = pixels.permute(0, 3, 1, 2).float()
    return functional.grid_sample(planes, grid, align_corners=False).permute(0, 2, 3, 1).contiguous()


def _matrices(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """[B, 2, 2]"""
    return np.stack([np.stack([a, b], axis=-1), np.stack([c, d], axis=-1)], axis=1)
