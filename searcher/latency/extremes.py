"""The lowest and highest latency in a space, so that an unreachable target is reported before a search begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from searcher.arch.decisions import option_counts
from searcher.arch.space import Space

_STARTS = 64


def latency_range(space: Space, latency: Callable[[Any], float]) -> tuple[float, float]:
    """Returns the lowest and the highest latency found, ms."""
    return _least(space, latency), -_least(space, lambda architecture: -latency(architecture))


def _least(space: Space, cost: Callable[[Any], float]) -> float:
    """Returns the least cost found: starts at the best of some random architectures, and improves single decisions.

    The rows of a table add up, so the gain of one decision hardly depends on the others.
    """
    rng = random.Random(0)
    best = min((space.random(rng) for _ in range(_STARTS)), key=cost)
    tokens, least = space.to_tokens(best), cost(best)
    improved = True
    while improved:
        improved = False
        for place, count in enumerate(option_counts(space.steps())):
            for option in range(count):
                changed = [*tokens[:place], option, *tokens[place + 1 :]]
                if (found := cost(space.from_tokens(changed))) < least:
                    tokens, least, improved = changed, found, True
    return least
