"""Stratified sampling: one item from each of several equal parts of an ordered sequence."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def one_of_each_stratum(ordered: Sequence[T], count: int, *, rng: random.Random) -> list[T]:
    """Returns `count` items, in their order; some repeatedly if there are fewer. `ordered` must not be empty."""
    bounds = [len(ordered) * number // count for number in range(count + 1)]
    return [ordered[rng.randrange(start, max(stop, start + 1))] for start, stop in itertools.pairwise(bounds)]
