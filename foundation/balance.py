"""Accuracy where classes are unequal: what speaks for the largest class alone, and what does not."""

# K classes

from __future__ import annotations

import math
from collections.abc import Sequence

_UNEQUAL = 1.5


def is_unequal(counts: Sequence[float]) -> bool:
    """Whether some class has so many more examples than another that accuracy speaks for it alone. counts: [K]."""
    return max(counts) > _UNEQUAL * min(counts)


def balanced_accuracy(hits: Sequence[float], counts: Sequence[float]) -> float:
    """The mean of the recalls, so that every class that has an example counts alike: in [0, 1].

    Args: hits: [K], right answers of each class; counts: [K], its examples, of which there must be one in all.
    """
    recalls = [hit / count for hit, count in zip(hits, counts, strict=True) if count]
    return sum(recalls) / len(recalls)


def balanced_error(hits: Sequence[float], counts: Sequence[float]) -> float:
    """The standard error of `balanced_accuracy`, a mean of independent recalls. Args: as there."""
    recalls = [(hit / count, count) for hit, count in zip(hits, counts, strict=True) if count]
    return math.sqrt(sum(recall * (1 - recall) / count for recall, count in recalls)) / len(recalls)
