"""Which classes a model finds likeliest."""

# K classes

from __future__ import annotations

import numpy as np


def top_classes(values: np.ndarray, *, top: int) -> np.ndarray:
    """The columns of the `top` largest values of [K], largest first, of equal ones the first, as `argmax` takes it."""
    return np.argsort(-values.astype(np.float64), kind="stable")[:top]
