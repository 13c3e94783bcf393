"""The candidates of a derivation: whom the search favours, random ones, neighbours of known networks, and these.

With a latency target all meet it, as measured side by side, at widths fitted to it. Knows nothing of training.

Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", for changing a good network
a little.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from datasets.seeds import numpy_generator, stream_seed
from exporter.latency.measure import CAREFUL, FITTING, measure_at_pace, onnx_of
from exporter.latency.profiling import Profiled, references_of
from exporter.latency.scaling import fit_widths, is_near, scaled
from exporter.selection.halving import HalvingConfig
from exporter.selection.searches import FinishedSearch
from searcher.arch.catalog import published_names
from searcher.arch.document import ArchitectureError, ConfigError
from searcher.arch.retarget import with_larger_maps
from searcher.arch.space import Space, neighbour
from searcher.arch.spec import Spec, parse_spec
from searcher.nn.complexity import complexity_of
from searcher.training.derive import sample_candidates, score

# Of a target: what measuring a network twice may differ by.
_MARGIN = 0.01
# Of a target: what is aimed at. Right on it, every second network would be too slow where a machine is busy.
_AIM = 0.98
# Uniform draws for each that is wanted.
_DRAWS_PER_STRATUM = 16
# Of a known network's decisions that a neighbour changes, at most; and draws for each neighbour wanted, for some are
# drawn twice.
_MOST_CHANGES = 3
_DRAWS_PER_NEIGHBOUR = 20
# At what widths a space may hold a known network.
_FACTORS_OF_KNOWN = (1, 2, 3, 4)
# Multiply-adds a millisecond, as a share of the most among the candidates. In two derivations of twelve networks on
# Fashion-MNIST all five below it were among the last four by training loss.
_LEAST_RATE = 0.5


@dataclass(frozen=True)
class Candidate:
    """A network that takes part."""

    name: str
    """`favoured 3`, `random 2` or `resnet-20 changed 1`, by where it comes from, or a known network's name."""
    spec: Spec
    latency_ms: float | None
    """Measured, beside the others; None where the search has no target."""
    reward: float | None
    """With the shared weights, on the search's minibatches; None of a known network."""

    def to_document(self) -> dict[str, Any]:
        """For `candidates.json`."""
        return {**vars(self), "spec": self.spec.to_document()}


def read_candidate(document: dict[str, Any], *, source: str) -> Candidate:
    """The inverse of `Candidate.to_document`. Raises: ArchitectureError: its spec is damaged."""
    return Candidate(**{**document, "spec": parse_spec(document["spec"], source=source)})


def candidates_of(finished: FinishedSearch, config: HalvingConfig, *, log: Callable[[str], None]) -> list[Candidate]:
    """Samples of the search, and the known networks, all measured to meet the target.

    In one sitting, and those that miss in a second one.

    Raises: ConfigError: nothing meets the target. BenchmarkError: see `measure`.
    """
    known = known_networks(finished.profiled) if finished.profiled else {}
    samples = _samples(finished, config, known=known)
    target = finished.search.config.latency
    if target is None:
        unmeasured = [Candidate(one.name, one.spec, None, one.reward) for one in samples[: config.num_candidates]]
        return unmeasured + [Candidate(name, spec, None, None) for name, spec in known.items()]
    # Half as many again as are wanted, for not all have a width that meets the target.
    tried = samples[: math.ceil(1.5 * config.num_candidates)]
    assert finished.table is not None
    on_record = finished.table.references
    paced = [(onnx_of(spec), on_record[name]) for name, spec in known.items() if name in on_record]
    ms_of = partial(measure_at_pace, paced=paced, batch=target.batch, threads=target.threads)
    aim_ms = _AIM * target.target_ms

    def shares(networks: Sequence[Spec]) -> list[float]:
        return [ms / aim_ms for ms in ms_of(networks, effort=FITTING)]

    def meets(share: float) -> bool:
        """With a margin, for they are measured once more."""
        return all(target.miss((share + margin) * aim_ms) == 0 for margin in (-_MARGIN, _MARGIN))

    # All in the same sittings, for opening and pacing take longer than the calls.
    fitted = fit_widths(
        [*(one.spec for one in tried), *known.values()],
        shares=shares,
        is_enough=[meets] * len(tried) + [is_near] * len(known),
    )
    specs = [fit.spec for fit in fitted]
    measured = ms_of(specs, effort=CAREFUL)
    # Where the machine was busy for a while, all that were fitted to the target can miss it together.
    if missing := [place for place, ms in enumerate(measured) if target.miss(ms) > 0]:
        for place, ms in zip(missing, ms_of([specs[place] for place in missing], effort=CAREFUL), strict=True):
            measured[place] = ms
    named = [*((one.name, one.reward) for one in tried), *((name, None) for name in known)]
    meeting = [
        Candidate(name, spec, ms, reward)
        for (name, reward), spec, ms in zip(named, specs, measured, strict=True)
        if target.miss(ms) == 0
    ]
    if all(one.reward is None for one in meeting):
        asked = f"{target.target_ms:.3g} ms"
        nearest = min(measured[: len(tried)], key=target.miss)
        raise ConfigError(f"of {len(tried)} networks none takes {asked}; the nearest takes {nearest:.3g} ms")
    for name in known:
        if all(one.name != name for one in meeting):
            log(f"{name} has no width at which it takes {target.target_ms:.3g} ms, and is left out")
    worthy = without_idle(meeting, log=log)
    searched = [one for one in worthy if one.reward is not None]
    return searched[: config.num_candidates] + [one for one in worthy if one.reward is None]


def without_idle(candidates: Sequence[Candidate], *, log: Callable[[str], None]) -> list[Candidate]:
    """Without those that compute much less in the same time than another: padding and overhead take the rest.

    The published networks stay, as they are published.
    """
    rates = [complexity_of(one.spec).total.multiply_adds / (one.latency_ms or math.inf) for one in candidates]
    least = _LEAST_RATE * max(rates, default=0.0)
    slow = [one.name for one, rate in zip(candidates, rates, strict=True) if rate < least]
    idle = [name for name in slow if name not in published_names()]
    if idle:
        busiest = candidates[rates.index(max(rates))].name
        log(f"left out, for in the same time {busiest} computes more than twice as much: {', '.join(idle)}")
    return [one for one in candidates if one.name not in idle]


@dataclass(frozen=True)
class _Sample:
    """An architecture of the search's space that may become a candidate."""

    name: str
    spec: Spec
    reward: float
    """With the shared weights."""


def _samples(finished: FinishedSearch, config: HalvingConfig, *, known: Mapping[str, Spec]) -> list[_Sample]:
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
        miss=search.miss if search.config.latency is not None else None,
        generator=torch.Generator().manual_seed(stream_seed(config.seed, "halving", "favoured")),
    )
    favoured = [finished.spec.architecture, *drawn]
    num_uniform = math.ceil(config.num_candidates / 2)  # a third of all that are tried
    uniform = spread(search.space, finished.spec, count=num_uniform, seed=config.seed)
    neighbours = neighbours_of(known, search.space, count=config.num_candidates, seed=config.seed)
    architectures = list(dict.fromkeys([*favoured, *uniform, *neighbours]))
    examples = numpy_generator(config.seed, "halving", "examples")
    batches = search.learner.reward_batches(examples, count=search.config.derivation.num_batches)
    scores = score(search.learner, search.supernet, architectures, batches).tolist()
    rewards = dict(zip(architectures, scores, strict=True))
    own, *others = dict.fromkeys(favoured)
    best = [own, *sorted(others, key=lambda one: -rewards[one])]
    rows = itertools.zip_longest(
        ((f"favoured {number}", one) for number, one in enumerate(best, start=1)),
        ((f"random {number}", one) for number, one in enumerate(dict.fromkeys(uniform), start=1)),
        ((name, one) for one, name in neighbours.items()),
    )
    samples: dict[Any, _Sample] = {}
    for name, one in (entry for row in rows for entry in row if entry is not None):
        spec = replace(finished.spec, architecture=one, provenance={"source": "search"})
        samples.setdefault(one, _Sample(name, spec, rewards[one]))
    return list(samples.values())


def known_networks(profiled: Profiled) -> dict[str, Spec]:
    """The published networks as latency targets name them, and on larger maps, where the same time makes them narrower.

    Which of the two trains better depends on the data.
    """
    known = references_of(profiled)
    larger = {f"{name} on larger maps": with_larger_maps(spec) for name, spec in known.items()}
    return known | {name: spec for name, spec in larger.items() if spec is not None}


def spread(space: Space, like: Spec, *, count: int, seed: int) -> list[Any]:
    """`count` architectures drawn uniformly, one of each of as many strata by multiply-adds, the most first.

    However far from the target they lie: their widths will be fitted. What costs most at the space's widths, layers
    that see large maps above all, becomes narrow so, and is found nowhere among what is predicted to meet the target.
    """
    rng = random.Random(stream_seed(seed, "halving", "uniform"))
    drawn = dict.fromkeys(space.random(rng) for _ in range(_DRAWS_PER_STRATUM * count))
    costs = {one: complexity_of(replace(like, architecture=one)).total.multiply_adds for one in drawn}
    ordered = sorted(drawn, key=lambda one: -costs[one])
    bounds = [len(ordered) * number // count for number in range(count + 1)]
    return [ordered[rng.randrange(start, max(stop, start + 1))] for start, stop in itertools.pairwise(bounds)]


def neighbours_of(known: Mapping[str, Spec], space: Space, *, count: int, seed: int) -> dict[Any, str]:
    """Neighbours of the known networks that a space holds, at their widths or larger, and their names, of each network
    in turn.

    However far from the target they lie: their widths will be fitted, so only the widths' proportions matter.
    """
    rng = random.Random(stream_seed(seed, "halving", "changed"))
    held = {name: one for name, spec in known.items() if (one := _held(space, spec)) is not None}
    found: dict[Any, str] = {one: name for name, one in held.items()}
    counts = dict.fromkeys(held, 0)
    for name in itertools.islice(itertools.cycle(held), _DRAWS_PER_NEIGHBOUR * count):
        one = neighbour(space, held[name], rng, changes=rng.randint(1, _MOST_CHANGES))
        if one not in found:
            counts[name] += 1
            found[one] = f"{name} changed {counts[name]}"
        if sum(counts.values()) == count:
            break
    return {one: name for one, name in found.items() if name not in held}


def _held(space: Space, spec: Spec) -> Any | None:
    """A network's architecture where the space holds it, at the first factor of its widths at which it does."""
    for factor in _FACTORS_OF_KNOWN:
        architecture = scaled(spec, factor).architecture
        with suppress(ArchitectureError):
            space.to_tokens(architecture)
            return architecture
    return None
