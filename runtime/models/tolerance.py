"""The allowed difference between two computations of a model's outputs."""

# N samples, K numbers per sample

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """For one sample's outputs, such as an image's logits: |a - b| <= atol + rtol · max |b|."""

    atol: float = 1e-4
    rtol: float = 1e-4

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Tolerance:
        """The tolerance in a model's `enas.golden`. Raises: KeyError, TypeError, ValueError: there is no valid one."""
        return cls(float(document["atol"]), float(document["rtol"]))

    def bound(self, expected: np.ndarray) -> np.ndarray:
        """The allowed difference of each sample: outputs [N, K] -> [N]."""
        bound: np.ndarray = self.atol + self.rtol * np.abs(expected).max(axis=1)
        return bound

    def excess(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Each sample's largest difference divided by the allowed one; above 1 if too large: [N, K] -> [N].

        Equal outputs give 0, even if the allowed difference is 0.
        """
        difference = largest_difference(found, expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = difference / self.bound(expected)
        return np.where(difference == 0, 0.0, np.where(np.isfinite(difference), part, np.inf))


def largest_difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Each sample's largest difference: [N, K] -> [N]; infinite if a value is not finite, so no bound allows it."""
    difference = np.abs(found - expected).max(axis=1)
    return np.where(np.isfinite(difference), difference, np.inf)
