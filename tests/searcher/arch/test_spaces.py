"""What holds for every search space."""

from __future__ import annotations

import random

import pytest

from searcher.arch.catalog import published_spec
from searcher.arch.errors import ArchitectureError
from searcher.arch.space import SPACES, SpaceModule, neighbour
from searcher.arch.stages.architecture import StagesArchitecture
from searcher.arch.tasks import IMAGE_CLASSIFICATION
from searcher.presets.catalog import search_preset
from searcher.spaces import LatencyView, Presets, View, Wiring, search_space


@pytest.mark.parametrize("name", SPACES)
def test_a_space_offers_all_that_is_asked_of_one(name: str) -> None:
    space = search_space(name)
    is_of_images = space.arch.TASK_KIND == IMAGE_CLASSIFICATION
    offered: list[tuple[object, type]] = [
        (space.arch, SpaceModule),
        (space.wiring, Wiring),
        (space.view, View),
        (space.presets, Presets),
    ]
    if is_of_images:
        offered.append((space.latency_view, LatencyView))
    asked = {(part, member) for part, protocol in offered for member in vars(protocol) if not member.startswith("_")}
    missing = {member for part, member in asked if not hasattr(part, member)}
    assert missing == (set() if is_of_images else {"make_operation"})


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
