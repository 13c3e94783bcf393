"""Who may be a candidate of a derivation: what is drawn, and who is left out."""

from __future__ import annotations

import random
from dataclasses import replace

from exporter.selection import candidates as choosing
from exporter.selection import drawing
from searcher.arch.catalog import published_spec
from searcher.arch.spec import Spec
from searcher.arch.widths import scaled
from searcher.nn.complexity import complexity_of
from searcher.presets.catalog import search_preset


def test_who_computes_less_than_half_as_much_in_the_time_is_left_out_and_named() -> None:
    specs = {name: published_spec(name) for name in ("resnet-20", "inverted-small", "narrow-small")}
    most = max(complexity_of(spec).total.multiply_adds for spec in specs.values())

    def at_rate(name: str, spec: Spec, share: float) -> choosing.Candidate:
        ms = complexity_of(spec).total.multiply_adds / most / share
        return choosing.Candidate(name, spec, ms, None)

    candidates = [
        at_rate("random 1", specs["inverted-small"], 0.51),
        at_rate("random 2", specs["inverted-small"], 0.49),
        at_rate("resnet-20", specs["resnet-20"], 1.0),
        at_rate("narrow-small", specs["narrow-small"], 0.1),  # published
        at_rate("narrow-small on larger maps", specs["narrow-small"], 0.1),
    ]
    told: list[str] = []
    kept = choosing.without_idle(candidates, log=told.append)
    assert [one.name for one in kept] == ["random 1", "resnet-20", "narrow-small"]
    (line,) = told
    assert line.endswith("resnet-20 computes more than twice as much: random 2, narrow-small on larger maps")
    assert choosing.without_idle([], log=told.append) == []
    assert len(told) == 1


def test_neighbours_of_a_known_network_in_the_space_take_part() -> None:
    space = search_preset("stages", "quick").search_space
    known = {name: published_spec(name) for name in ("inverted-small", "mobilenet-v2-small", "narrow-small")}
    found = drawing.neighbours_of(known, space, word="changed", count=6, rng=random.Random(0))
    # The space holds narrow-small at twice its widths, and mobilenet-v2-small at none, for it is deeper.
    names = [f"{name} changed {number}" for number in (1, 2, 3) for name in ("inverted-small", "narrow-small")]
    assert sorted(found.values()) == sorted(names)
    for architecture in found:
        assert architecture not in (
            known["inverted-small"].architecture,
            scaled(known["narrow-small"], 2).architecture,
        )
        assert space.from_tokens(space.to_tokens(architecture)) == architecture
    others = drawing.neighbours_of(known, space, word="changed", count=6, rng=random.Random(0), without=list(found))
    assert len(others) == 6
    assert not others.keys() & found.keys()
    assert drawing.neighbours_of({}, space, word="changed", count=6, rng=random.Random(0)) == {}


def test_uniform_candidates_are_of_every_cost_that_the_space_has() -> None:
    space = search_preset("stages", "quick").search_space
    like = published_spec("inverted-small")
    found = drawing.spread(space, like, count=4, seed=0)
    costs = [complexity_of(replace(like, architecture=one)).total.multiply_adds for one in found]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 4 * costs[-1]
    assert [found[number].stem.stride for number in (0, -1)] == [1, 2]
    assert drawing.spread(space, like, count=4, seed=0) == found
    assert drawing.spread(space, like, count=4, seed=1) != found
