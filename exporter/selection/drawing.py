"""Architectures of a search's space that may become candidates of a derivation, and how they are drawn.

Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", for changing a good network
a little.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from exporter.selection.halving import HalvingConfig
from exporter.selection.searches import FinishedSearch
from exporter.selection.strata import one_of_each_stratum
from foundation.seeds import numpy_generator, stream_seed
from searcher.arch.errors import ArchitectureError
from searcher.arch.space import Space, neighbour
from searcher.arch.spec import Spec
from searcher.arch.widths import scaled
from searcher.nn.complexity import complexity_of
from searcher.running.device import torch_threads
from searcher.training.derive import sample_candidates, score

# Uniform draws for each that is wanted.
_DRAWS_PER_STRATUM = 16
# Of a network's decisions that a neighbour changes, at most; and draws for each neighbour wanted, for some are drawn
# twice.
_MOST_CHANGES = 3
_DRAWS_PER_NEIGHBOUR = 20
# At what widths a space may hold a known network.
_FACTORS_OF_KNOWN = (1, 2, 3, 4)


@dataclass(frozen=True)
class Sample:
    """A network that may become a candidate, at the widths that it was drawn at."""

    name: str
    spec: Spec
    reward: float | None
    """With the shared weights; None of a known network."""
    drawn: Spec | None
    """As the search's space holds it; None where it does not."""


def samples_of(finished: FinishedSearch, config: HalvingConfig, *, known: Mapping[str, Spec]) -> list[Sample]:
    """In turn an architecture that shared weights favour and that is predicted to meet the target, one drawn uniformly,
    and a neighbour of a known network.

    The first is the search's own choice. Shared weights favour what shares them most, narrow layers above all, and a
    policy that has settled gives many of a kind: with its best alone, what differs from them would never be trained.
    """
    search = finished.search
    drawn = sample_candidates(
        search.policy,
        search.space,
        config.num_scored,
        miss=None if search.aim is None else search.aim.miss,
        generator=torch.Generator().manual_seed(stream_seed(config.seed, "halving", "favoured")),
    )
    favoured = [finished.spec.architecture, *drawn]
    num_uniform = math.ceil(config.num_candidates / 2)  # a third of all that are tried
    uniform = spread(search.space, finished.spec, count=num_uniform, seed=config.seed)
    changed = random.Random(stream_seed(config.seed, "halving", "changed"))
    neighbours = neighbours_of(known, search.space, word="changed", count=config.num_candidates, rng=changed)
    rewards = _rewards(list(dict.fromkeys([*favoured, *uniform, *neighbours])), finished, config)
    own, *others = dict.fromkeys(favoured)
    best = [own, *sorted(others, key=lambda one: -rewards[one])]
    rows = itertools.zip_longest(
        ((f"favoured {number}", one) for number, one in enumerate(best, start=1)),
        ((f"random {number}", one) for number, one in enumerate(dict.fromkeys(uniform), start=1)),
        ((name, one) for one, name in neighbours.items()),
    )
    samples: dict[Any, Sample] = {}
    for name, one in (entry for row in rows for entry in row if entry is not None):
        samples.setdefault(one, _sample(name, one, rewards[one], finished))
    return list(samples.values())


def scored(architectures: Mapping[str, Any], finished: FinishedSearch, config: HalvingConfig) -> list[Sample]:
    """Samples of architectures of the space, given by name."""
    rewards = _rewards(list(architectures.values()), finished, config)
    return [_sample(name, one, rewards[one], finished) for name, one in architectures.items()]


def spread(space: Space, like: Spec, *, count: int, seed: int) -> list[Any]:
    """`count` architectures drawn uniformly, one of each of as many strata by multiply-adds, the most first.

    However far from the target they lie: their widths will be fitted. What costs most at the space's widths, layers
    that see large maps above all, becomes narrow so, and is found nowhere among what is predicted to meet the target.
    """
    rng = random.Random(stream_seed(seed, "halving", "uniform"))
    drawn = dict.fromkeys(space.random(rng) for _ in range(_DRAWS_PER_STRATUM * count))
    costs = {one: complexity_of(replace(like, architecture=one)).total.multiply_adds for one in drawn}
    return one_of_each_stratum(sorted(drawn, key=lambda one: -costs[one]), count, rng=rng)


def neighbours_of(
    networks: Mapping[str, Spec],
    space: Space,
    *,
    word: str,
    count: int,
    rng: random.Random,
    without: Collection[Any] = (),
) -> dict[Any, str]:
    """Neighbours of the networks that a space holds, at their widths or larger, and their names, of each network in
    turn.

    However far from a target they lie: their widths will be fitted, so only the widths' proportions matter. Args: word:
    between the network's name and the neighbour's number. without: architectures that are known already.
    """
    parents = {name: one.architecture for name, spec in networks.items() if (one := held(space, spec)) is not None}
    known = {*parents.values(), *without}
    found: dict[Any, str] = {}
    counts = dict.fromkeys(parents, 0)
    for name in itertools.islice(itertools.cycle(parents), _DRAWS_PER_NEIGHBOUR * count):
        one = neighbour(space, parents[name], rng, changes=rng.randint(1, _MOST_CHANGES))
        if one not in known:
            known.add(one)
            counts[name] += 1
            found[one] = f"{name} {word} {counts[name]}"
        if len(found) == count:
            break
    return found


def held(space: Space, spec: Spec) -> Spec | None:
    """A network as the space holds it, at the first factor of its widths at which it does; None if it holds it not."""
    for factor in _FACTORS_OF_KNOWN:
        found = scaled(spec, factor)
        with suppress(ArchitectureError):
            space.to_tokens(found.architecture)
            return found
    return None


def _rewards(architectures: list[Any], finished: FinishedSearch, config: HalvingConfig) -> dict[Any, float]:
    """With the shared weights, on the search's minibatches."""
    search = finished.search
    examples = numpy_generator(config.seed, "halving", "examples")
    batches = search.learner.reward_batches(examples, count=search.config.derivation.num_batches)
    with torch_threads(1):  # two that other processes keep from a core wait for each other at every operation
        scores = score(search.learner, search.supernet, architectures, batches).tolist()
    return dict(zip(architectures, scores, strict=True))


def _sample(name: str, architecture: Any, reward: float, finished: FinishedSearch) -> Sample:
    spec = replace(finished.spec, architecture=architecture, provenance={"source": "search"})
    return Sample(name, spec, reward, spec)
