"""Pixels of more than eight bits, brought to eight.

A file of 16 bits may hold 12, one of floats 0 to 1: by the type's range alone both would come out black. So the range
is that of the file's own values, and where it is not the type's the caller is told, for a person to know.
"""

# H height, W width

from __future__ import annotations

import numpy as np

_WIDTHS = (8, 10, 12, 14, 16)
"""Bits a pixel that cameras, scanners and microscopes write into 16."""


def to_eight_bits(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Values [H, W] of any whole or floating type as uint8 [H, W], and how they were scaled; None if by their type.

    Whole numbers from 0 to 65535: the fewest of 8, 10, 12, 14 or 16 bits that hold the largest. Floats: from 0 to 1, or
    from 0 to 255, if they lie within; all others from the smallest, which NaN and infinity become, to the largest.
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
    """How many bits pixels of 16 bits are read as, given the largest of them; None if as 16."""
    width = bits_that_hold(largest)
    # An all-black picture says nothing of its range.
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
    halves = values / 2  # whose difference cannot overflow
    halves -= values.dtype.type(low / 2)
    halves *= 2 * scale
    return _rounded(halves), f"values from {low:g} to {high:g}: scaled to that range"


def _rounded(values: np.ndarray) -> np.ndarray:
    """As uint8. `values` is overwritten: there may be many of them."""
    rounded: np.ndarray = np.rint(values, out=values).astype(np.uint8)
    return rounded
