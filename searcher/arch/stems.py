"""The stem of image networks: 3×3 convolutions, each of which halves the picture, or one that keeps its size."""

from __future__ import annotations

from foundation.document import ConfigError

STEM_STRIDES = (1, 2, 4, 8, 16)
"""Possible ratios of the picture's side to the side of the stem's output."""


def check_stem_stride(name: str, stride: int) -> None:
    """Raises: ConfigError: no stem has that stride. Args: name: the name of the setting."""
    if stride not in STEM_STRIDES:
        raise ConfigError(f"{name} is {stride}; expected one of {', '.join(map(str, STEM_STRIDES))}")


def stem_steps(stride: int) -> list[int]:
    """Returns the strides of a stem's convolutions: a single 1 for stride 1, else one 2 for each halving."""
    return [2] * (stride.bit_length() - 1) or [1]


def stem_stride(image_size: int, *, largest_map: int) -> int:
    """Returns the smallest stride that reduces pictures to at most `largest_map` pixels per side; else the largest."""
    fitting = (stride for stride in STEM_STRIDES if -(-image_size // stride) <= largest_map)
    return next(fitting, STEM_STRIDES[-1])
