"""What the presets of both convolutional spaces have in common."""

from __future__ import annotations

DATASETS = {
    "quick": "fashion-mnist-mini",
    "standard": "fashion-mnist",
    "paper": "cifar10",
    "reference": "cifar10",
}
"""What each preset is meant for, when the user names no data set."""


def stem_stride(image_size: int, *, largest_map: int) -> int:
    """The smallest power of two, 16 at most, that brings the first cell's input down to `largest_map` pixels a side."""
    stride = 1
    while -(-image_size // stride) > largest_map and stride < 16:
        stride *= 2
    return stride
