"""Drawing by strata: as many equal parts of what is in order, and one of each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def one_of_each_stratum(ordered: Sequence[T], count: int, *, rng: random.Random) -> list[T]:
    """`count` of them, in their order; some more than once where there are fewer. There is one at least."""
    bounds = [len(ordered) * number // count for number in range(count + 1)]
    return [ordered[rng.randrange(start, max(stop, start + 1))] for start, stop in itertools.pairwise(bounds)]
