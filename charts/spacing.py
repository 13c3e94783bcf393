"""Spaces items along a line: boxes of a rank, labels at the end of a curve."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def separated(wanted: Sequence[float], gaps: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Returns the positions nearest to `wanted`, in the given order, with i and i + 1 at least `gaps[i]` apart.

    Nearest in the sense of weighted least squares. Exact: pools neighbours that would violate the order (isotonic
    regression of the positions minus the gaps before them).
    """
    if weights is None:
        weights = [1.0] * len(wanted)
    offsets = [0.0, *itertools.accumulate(gaps)]
    pools: list[tuple[float, float, int]] = []  # weighted mean, weight, members
    for position, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, members = position - offset, 1
        while pools and pools[-1][0] > mean:
            before, its_weight, its_members = pools.pop()
            mean = (before * its_weight + mean * weight) / (its_weight + weight)
            weight, members = weight + its_weight, members + its_members
        pools.append((mean, weight, members))
    means = [mean for mean, _, members in pools for _ in range(members)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
