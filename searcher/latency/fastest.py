"""The fastest network of a space, so that a target that nothing meets is refused before a search begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from searcher.arch.decisions import option_counts
from searcher.arch.space import Space

_STARTS = 64


def fastest(space: Space, latency: Callable[[Any], float]) -> float:
    """The least latency found, ms: from the best of some random architectures, decision by decision to a better one.

    Rows of a table add up, so that what one decision gains hardly depends on the others.
    """
    rng = random.Random(0)
    best = min((space.random(rng) for _ in range(_STARTS)), key=latency)
    tokens, least = space.to_tokens(best), latency(best)
    improved = True
    while improved:
        improved = False
        for place, count in enumerate(option_counts(space.steps())):
            for option in range(count):
                changed = [*tokens[:place], option, *tokens[place + 1 :]]
                if (ms := latency(space.from_tokens(changed))) < least:
                    tokens, least, improved = changed, ms, True
    return least
