"""The stem of networks of images: 3×3 convolutions, each of which halves the picture, that bring it down to maps."""

from __future__ import annotations

from foundation.document import ConfigError

STEM_STRIDES = (1, 2, 4, 8, 16)
"""How much smaller than the picture a stem's output may be, per side."""


def check_stem_stride(name: str, stride: int) -> None:
    """Raises: ConfigError: no stem has that stride. Args: name: of the setting."""
    if stride not in STEM_STRIDES:
        raise ConfigError(f"{name} is {stride}; expected one of {', '.join(map(str, STEM_STRIDES))}")


def stem_steps(stride: int) -> list[int]:
    """The strides of a stem's convolutions: one that keeps the picture's size, or as many as halve it."""
    return [2] * (stride.bit_length() - 1) or [1]


def stem_stride(image_size: int, *, largest_map: int) -> int:
    """The smallest stride that brings pictures of that size down to `largest_map` pixels a side; else the largest."""
    fitting = (stride for stride in STEM_STRIDES if -(-image_size // stride) <= largest_map)
    return next(fitting, STEM_STRIDES[-1])
