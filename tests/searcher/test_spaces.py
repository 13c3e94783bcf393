"""What holds for every search space."""

from __future__ import annotations

import random

import pytest

from searcher.arch.catalog import published_spec
from searcher.arch.document import ArchitectureError
from searcher.arch.spaces import SPACES, neighbour
from searcher.arch.stages import StagesArchitecture
from searcher.presets.catalog import search_preset


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("changes", [1, 3])
def test_a_neighbour_is_in_the_space_and_differs_in_so_many_decisions(name: str, changes: int) -> None:
    space = search_preset(name, "quick").search_space
    rng = random.Random(0)
    different = 0
    for _ in range(50):
        one = space.random(rng)
        other = neighbour(space, one, rng, changes=changes)
        pairs = list(zip(space.to_tokens(one), space.to_tokens(other), strict=True))
        if name != "stages":  # whose layers move up where one is left out
            assert sum(before != after for before, after in pairs) <= changes
        different += one != other
        assert space.from_tokens(space.to_tokens(other)) == other
    assert different > 40


def test_what_is_not_in_a_space_has_no_neighbours_there() -> None:
    space = search_preset("stages", "quick").search_space
    mobilenet = published_spec("mobilenet-v2-small").architecture
    assert isinstance(mobilenet, StagesArchitecture)
    with pytest.raises(ArchitectureError, match="not in this space"):
        neighbour(space, mobilenet, random.Random(0), changes=1)
