"""What the presets of both convolutional spaces have in common."""

from __future__ import annotations

DATASETS = {
    "quick": "fashion-mnist-mini",
    "standard": "fashion-mnist",
    "paper": "cifar10",
    "reference": "cifar10",
}
"""What each preset is meant for, when the user names no data set."""
