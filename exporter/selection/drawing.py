"""Samples architectures of a search's space as possible candidates of a derivation.

Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", for small changes to a good
network.
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

# Uniform draws for each architecture wanted.
_DRAWS_PER_STRATUM = 16
# Most decisions of a network that a neighbour changes; and draws for each neighbour wanted, since some are drawn twice.
_MOST_CHANGES = 3
_DRAWS_PER_NEIGHBOUR = 20
# Factors of a known network's widths that are tried to find it in a space.
_FACTORS_OF_KNOWN = (1, 2, 3, 4)


@dataclass(frozen=True)
class Sample:
    """A network that may become a candidate, at the widths at which it was drawn."""

    name: str
    spec: Spec
    reward: float | None
    """With the shared weights; None for a known network."""
    drawn: Spec | None
    """As an architecture of the search's space; None if the space has none."""


def samples_of(finished: FinishedSearch, config: HalvingConfig, *, known: Mapping[str, Spec]) -> list[Sample]:
    """Returns in turn an architecture that shared weights favour and that is predicted to meet the target, a uniformly
    drawn one, and a neighbour of a known network.

    The first is the search's own choice. Shared weights favour architectures that share them most, above all narrow
    layers, and a converged policy samples many similar ones: with its best alone, different ones would never be
    trained.
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
    """Returns the samples of architectures of the space, given by name."""
    rewards = _rewards(list(architectures.values()), finished, config)
    return [_sample(name, one, rewards[one], finished) for name, one in architectures.items()]


def spread(space: Space, like: Spec, *, count: int, seed: int) -> list[Any]:
    """Returns `count` uniformly drawn architectures, one from each of `count` strata by multiply-adds, the most first.

    Their latencies do not matter, since their widths will be fitted. Architectures that cost most at the space's
    widths, above all by layers with large maps, become narrow; none of them is among those predicted to meet the
    target.
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
    """Returns neighbours of the networks that a space contains at their widths or larger, with names, of each network
    in turn.

    Their latencies do not matter: their widths will be fitted, so only the widths' proportions count. Args: word:
    between the network's name and the neighbour's number. without: architectures to leave out.
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
    """Returns a network with its widths times the first factor at which the space contains it; None if none does."""
    for factor in _FACTORS_OF_KNOWN:
        found = scaled(spec, factor)
        with suppress(ArchitectureError):
            space.to_tokens(found.architecture)
            return found
    return None


def _rewards(architectures: list[Any], finished: FinishedSearch, config: HalvingConfig) -> dict[Any, float]:
    """Returns the rewards with the shared weights, on the search's minibatches."""
    search = finished.search
    examples = numpy_generator(config.seed, "halving", "examples")
    batches = search.learner.reward_batches(examples, count=search.config.derivation.num_batches)
    with torch_threads(1):  # two threads without a free core each wait for each other at every operation
        scores = score(search.learner, search.supernet, architectures, batches).tolist()
    return dict(zip(architectures, scores, strict=True))


def _sample(name: str, architecture: Any, reward: float, finished: FinishedSearch) -> Sample:
    spec = replace(finished.spec, architecture=architecture, provenance={"source": "search"})
    return Sample(name, spec, reward, spec)
