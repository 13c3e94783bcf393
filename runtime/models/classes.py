"""The most likely classes in a model's output."""

# K classes

from __future__ import annotations

import numpy as np


def top_classes(values: np.ndarray, *, top: int) -> np.ndarray:
    """Indices of the `top` largest values of [K], largest first; of equal values the lower index first, as `argmax`."""
    return np.argsort(-values.astype(np.float64), kind="stable")[:top]
