"""How far two computations of one model's answers may lie apart."""

# N samples, K numbers of each

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """Of one sample's answers, such as an image's logits: |a - b| <= atol + rtol · max |b|."""

    atol: float = 1e-4
    rtol: float = 1e-4

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Tolerance:
        """What a model's `enas.golden` states. Raises: KeyError, TypeError, ValueError: it states none."""
        return cls(float(document["atol"]), float(document["rtol"]))

    def bound(self, expected: np.ndarray) -> np.ndarray:
        """The difference allowed for each sample: answers [N, K] -> [N]."""
        bound: np.ndarray = self.atol + self.rtol * np.abs(expected).max(axis=1)
        return bound

    def excess(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Each sample's largest difference as a part of what is allowed, above 1 where it is too large: [N, K] -> [N].

        Equal answers have none, even where nothing is allowed.
        """
        difference = largest_difference(found, expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = difference / self.bound(expected)
        return np.where(difference == 0, 0.0, np.where(np.isfinite(difference), part, np.inf))


def largest_difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each sample's answers: [N, K] -> [N]; infinite where one is not finite, which differs from everything."""
    difference = np.abs(found - expected).max(axis=1)
    return np.where(np.isfinite(difference), difference, np.inf)
