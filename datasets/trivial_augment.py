"""TrivialAugment: each picture undergoes one operation, drawn from fourteen, at one of 31 strengths.

The ranges are those of the paper's wide space. Source: Müller and Hutter 2021, arXiv:2103.10158, table 6.
"""

# B batch, H W C a picture's height, width and channels

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets import colours
from datasets.warps import affine, warp

WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": colours.brighten,
    "contrast": colours.stretch,
    "colour": colours.saturate,
    "sharpness": colours.sharpen,
    "posterize": colours.posterize,
    "solarize": colours.solarize,
    "autocontrast": lambda pixels, _: colours.autocontrast(pixels),
    "equalize": lambda pixels, _: colours.equalize(pixels),
}
OPERATIONS = ("identity", *WARPS, *COLOURS)
_NUM_STRENGTHS = 31
_SHEAR, _SHIFT, _TURN, _FACTOR, _BITS = 0.99, 32, 135, 0.99, 6
"""Greatest strengths: the tangent of an angle, pixels, degrees, deviation of a factor from 1, bits removed from 8."""


def _strength(operation: str, level: float, sign: float) -> float:
    """Returns the argument of an operation at a level from 0 to 1. sign: -1 or 1."""
    match operation:
        case "shear_x" | "shear_y":
            return sign * level * _SHEAR
        case "translate_x" | "translate_y":
            return sign * level * _SHIFT
        case "rotate":
            return sign * level * _TURN
        case "posterize":
            return 8 - round(level * _BITS)
        case "solarize":
            return 255 * (1 - level)
        case "brightness" | "contrast" | "colour" | "sharpness":
            return 1 + sign * level * _FACTOR
        case _:
            return 0.0


_STRENGTHS = np.array(
    [
        [
            [_strength(operation, level / (_NUM_STRENGTHS - 1), sign) for sign in (-1, 1)]
            for level in range(_NUM_STRENGTHS)
        ]
        for operation in OPERATIONS
    ]
)
"""[operations, levels, signs]"""


@dataclass(frozen=True)
class Trivial:
    """The random choices for a batch, with its pictures sorted by operation."""

    counts: tuple[int, ...]
    """Number of pictures for each operation."""
    places: Tensor
    """Index of each picture in the batch, int64 [B]."""
    strengths: Tensor
    """Argument of each picture's operation, float32 [B]."""
    maps: Tensor
    """Maps of the n warped pictures, see `warps.warp`: float32 [n, 2, 3]."""

    def to(self, device: torch.device) -> Trivial:
        return Trivial(self.counts, self.places.to(device), self.strengths.to(device), self.maps.to(device))


def draw_trivial(generator: np.random.Generator, shape: Sequence[int]) -> Trivial:
    """Draws operations and strengths for a batch of `shape` [B, H, W, C]."""
    batch = shape[0]
    chosen = generator.integers(0, len(OPERATIONS), batch)
    levels, signs = generator.integers(0, _NUM_STRENGTHS, batch), generator.integers(0, 2, batch)
    places = np.argsort(chosen, kind="stable")
    strengths = _STRENGTHS[chosen, levels, signs][places]
    counts = np.bincount(chosen, minlength=len(OPERATIONS))
    start = counts[0]
    sizes = dict(zip(WARPS, np.split(strengths[start:], np.cumsum(counts[1 : 1 + len(WARPS)])), strict=False))
    maps = np.concatenate(
        [
            affine(lean_x=np.arctan(sizes["shear_x"])),
            affine(lean_y=np.arctan(sizes["shear_y"])),
            affine(shift_x=sizes["translate_x"]),
            affine(shift_y=sizes["translate_y"]),
            affine(turn=np.radians(sizes["rotate"])),
        ]
    )
    return Trivial(
        tuple(counts.tolist()),
        torch.from_numpy(places),
        torch.from_numpy(strengths.astype(np.float32)),
        torch.from_numpy(maps.astype(np.float32)),
    )


def apply_trivial(pixels: Tensor, drawn: Trivial) -> Tensor:
    """Applies to each picture uint8 [B, H, W, C] its operation; returns float32, 0 to 255."""
    found = pixels.float()
    unchanged, warped = drawn.counts[0], sum(drawn.counts[1 : 1 + len(WARPS)])
    places = drawn.places[unchanged:]
    if warped:
        here = places[:warped]
        found.index_copy_(0, here, warp(pixels.index_select(0, here), drawn.maps))
    start = warped
    for operation, count in zip(COLOURS.values(), drawn.counts[1 + len(WARPS) :], strict=True):
        if count:
            here = places[start : start + count]
            strengths = drawn.strengths[unchanged + start : unchanged + start + count]
            found.index_copy_(0, here, operation(found.index_select(0, here), strengths))
        start += count
    return found
