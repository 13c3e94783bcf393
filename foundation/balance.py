"""Balanced accuracy, for data sets whose classes have unequal numbers of examples."""

# K classes

from __future__ import annotations

import math
from collections.abc import Sequence

_UNEQUAL = 1.5


def is_unequal(counts: Sequence[float]) -> bool:
    """Whether class sizes differ so much that plain accuracy mostly measures the largest classes. counts: [K]."""
    return max(counts) > _UNEQUAL * min(counts)


def balanced_accuracy(hits: Sequence[float], counts: Sequence[float]) -> float:
    """Returns the mean of the recalls, with equal weight for every class that has an example: in [0, 1].

    Args: hits: [K], correct predictions of each class; counts: [K], its examples, at least one in total.
    """
    recalls = [hit / count for hit, count in zip(hits, counts, strict=True) if count]
    return sum(recalls) / len(recalls)


def balanced_error(hits: Sequence[float], counts: Sequence[float]) -> float:
    """The standard error of `balanced_accuracy`, a mean of independent recalls. Args: as in `balanced_accuracy`."""
    recalls = [(hit / count, count) for hit, count in zip(hits, counts, strict=True) if count]
    return math.sqrt(sum(recall * (1 - recall) / count for recall, count in recalls)) / len(recalls)
