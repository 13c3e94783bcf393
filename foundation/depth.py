"""Scales pixels of more than eight bits to eight.

A 16-bit file may hold 12-bit values, and a file of floats values from 0 to 1: scaled by the range of the type, both
would become black. So the range depends on the file's values, and a remark tells the user if it is not the type's.
"""

# H height, W width

from __future__ import annotations

import numpy as np

_WIDTHS = (8, 10, 12, 14, 16)
"""Bits per pixel that cameras, scanners and microscopes store in 16 bits."""


def to_eight_bits(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Returns values [H, W] of any integer or float type as uint8 [H, W], and a remark on the scaling, if not by type.

    Integers from 0 to 65535 are scaled from the fewest of 8, 10, 12, 14 or 16 bits that hold the largest; floats from 0
    to 1, or from 0 to 255, if all lie in that range; all other values from their smallest to their largest. NaN and
    infinity become the smallest finite value.
    """
    if values.dtype.kind == "f":
        return _from_floats(values)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << _WIDTHS[-1]:
        return _stretched(values.astype(np.float64), low, high)
    width = bits_that_hold(high)
    return (values >> (width - _WIDTHS[0])).astype(np.uint8), remark_on_bits(high)


def bits_that_hold(value: int) -> int:
    """The fewest of 8, 10, 12, 14 or 16 bits that hold a value from 0 to 65535."""
    return next(width for width in _WIDTHS if value < 1 << width)


def remark_on_bits(largest: int) -> str | None:
    """Returns a remark on the bits that 16-bit pixels are read as, given the largest of them; None if as 16."""
    width = bits_that_hold(largest)
    # An all-black picture does not show which range it has.
    return None if width == _WIDTHS[-1] or largest == 0 else f"no value above {largest}: read as {width} bits a pixel"


def _from_floats(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        return _stretched(values, low, high)
    if high > 1:
        return _rounded(values.copy()), "floating-point values: read as 0 to 255"
    return _rounded(values * 255), "floating-point values: read as 0 to 1"


def _stretched(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, str]:
    scale = 255 / (high - low) if high > low else 0.0
    halves = values / 2  # the difference of two halves cannot overflow
    halves -= values.dtype.type(low / 2)
    halves *= 2 * scale
    return _rounded(halves), f"values from {low:g} to {high:g}: scaled to that range"


def _rounded(values: np.ndarray) -> np.ndarray:
    """Returns values as uint8. Overwrites `values` to save memory: there may be many of them."""
    rounded: np.ndarray = np.rint(values, out=values).astype(np.uint8)
    return rounded
