"""The candidates of a derivation: networks that the search favours, random ones, known networks and their neighbours.

With a latency target all candidates meet it, measured together, at widths fitted to it. Without one there is no size at
which a known network would be a fair candidate, so none is included. Knows nothing of training.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.latency.profiling import Profiled
from exporter.selection.drawing import Sample, held, neighbours_of, samples_of, scored
from exporter.selection.halving import HalvingConfig
from exporter.selection.searches import FinishedSearch
from exporter.selection.target import brought_to_target
from foundation.document import ConfigError
from foundation.seeds import stream_seed
from searcher.arch.catalog import published_names
from searcher.arch.retarget import with_larger_maps
from searcher.arch.spec import Spec, parse_spec
from searcher.latency.references import references_of
from searcher.nn.complexity import complexity_of

# Networks fitted for each candidate wanted, since not all have a width that meets the target.
_TRIED = 1.5
# Least multiply-adds per millisecond, as a fraction of the most among the candidates. In two derivations of twelve
# networks on Fashion-MNIST all five below it were among the last four by training loss.
_LEAST_RATE = 0.5
# Per parent; the parents are a rung's best.
_DESCENDANTS_OF_EACH = 3


@dataclass(frozen=True)
class Candidate:
    """A network that a derivation trains."""

    name: str
    """`favoured 3`, `random 2` or `resnet-20 changed 1`, by where it comes from, or a known network's name."""
    spec: Spec
    latency_ms: float | None
    """Measured together with the others; None if the search has no target."""
    reward: float | None
    """With the shared weights, on the search's minibatches; None for a known network."""
    drawn: Spec | None = None
    """As an architecture of the search's space, before its widths were fitted; None if the space has none."""

    def to_document(self) -> dict[str, Any]:
        """For `candidates.json`."""
        drawn = None if self.drawn is None else self.drawn.to_document()
        return {**vars(self), "spec": self.spec.to_document(), "drawn": drawn}


def read_candidate(document: dict[str, Any], *, source: str) -> Candidate:
    """The inverse of `Candidate.to_document`. Raises: ArchitectureError: its spec is damaged."""
    drawn = document.get("drawn")
    specs = {
        "spec": parse_spec(document["spec"], source=source),
        "drawn": None if drawn is None else parse_spec(drawn, source=source),
    }
    return Candidate(**{**document, **specs})


def candidates_of(finished: FinishedSearch, config: HalvingConfig, *, log: Callable[[str], None]) -> list[Candidate]:
    """Returns samples of the search and known networks that meet the target as measured, or samples if there is none.

    Raises: ConfigError: no sample meets the target. BenchmarkError: see `measure`.
    """
    known = _known_of(finished)
    samples = samples_of(finished, config, known={one.name: one.spec for one in known})
    target = finished.search.config.latency
    if target is None:
        return [_unmeasured(one) for one in samples[: config.num_candidates]]
    tried = samples[: math.ceil(_TRIED * config.num_candidates)]
    meeting = _meeting([*tried, *known], finished)
    if all(one.reward is None for one in meeting):
        raise ConfigError(f"of {len(tried)} networks none has a width at which it takes {target.target_ms:.3g} ms")
    for sample in known:
        if all(one.name != sample.name for one in meeting):
            log(f"{sample.name} has no width at which it takes {target.target_ms:.3g} ms, and is left out")
    worthy = without_idle(meeting, log=log)
    searched = [one for one in worthy if one.reward is not None]
    return searched[: config.num_candidates] + [one for one in worthy if one.reward is None]


def descendants_of(
    ranked: Sequence[Candidate], finished: FinishedSearch, config: HalvingConfig, *, log: Callable[[str], None]
) -> list[Candidate]:
    """Returns up to `config.num_descendants` neighbours of the best ranked candidates, measured to meet the target.

    Only candidates that the search's space contains at some width have neighbours. Raises: BenchmarkError: see
    `measure`.
    """
    parents = {one.name: one.drawn for one in ranked if one.drawn is not None}
    count = math.ceil(config.num_descendants / _DESCENDANTS_OF_EACH)
    names = neighbours_of(
        dict(itertools.islice(parents.items(), count)),
        finished.search.space,
        word="descendant",
        count=math.ceil(_TRIED * config.num_descendants),
        rng=random.Random(stream_seed(config.seed, "halving", "descendants")),
        without=[spec.architecture for spec in parents.values()],
    )
    samples = scored({name: one for one, name in names.items()}, finished, config)
    if finished.search.config.latency is None:
        return [_unmeasured(one) for one in samples[: config.num_descendants]]
    meeting = _meeting(samples, finished)
    best = {one.name for one in ranked}
    worthy = without_idle([*ranked, *meeting], log=log)
    return [one for one in worthy if one.name not in best][: config.num_descendants]


def without_idle(candidates: Sequence[Candidate], *, log: Callable[[str], None]) -> list[Candidate]:
    """Leaves out candidates that compute much less than another in the same time, which goes to padding and overhead.

    Published networks are always kept, as published.
    """
    rates = [complexity_of(one.spec).total.multiply_adds / (one.latency_ms or math.inf) for one in candidates]
    least = _LEAST_RATE * max(rates, default=0.0)
    slow = [one.name for one, rate in zip(candidates, rates, strict=True) if rate < least]
    idle = [name for name in slow if name not in published_names()]
    if idle:
        busiest = candidates[rates.index(max(rates))].name
        log(f"left out, for in the same time {busiest} computes more than twice as much: {', '.join(idle)}")
    return [one for one in candidates if one.name not in idle]


def known_networks(profiled: Profiled) -> dict[str, Spec]:
    """Returns the published networks of latency targets, and each on larger maps, where equal time makes it narrower.

    Which of the two trains better depends on the data.
    """
    known = references_of(profiled.space_name, profiled.space, profiled.task)
    larger = {f"{name} on larger maps": with_larger_maps(spec) for name, spec in known.items()}
    return known | {name: spec for name, spec in larger.items() if spec is not None}


def _known_of(finished: FinishedSearch) -> list[Sample]:
    if finished.profiled is None:
        return []
    space = finished.search.space
    return [Sample(name, spec, None, held(space, spec)) for name, spec in known_networks(finished.profiled).items()]


def _unmeasured(sample: Sample) -> Candidate:
    return Candidate(sample.name, sample.spec, None, sample.reward, sample.drawn)


def _meeting(samples: Sequence[Sample], finished: FinishedSearch) -> list[Candidate]:
    """Returns the samples that meet the target as measured, at widths fitted to it."""
    target = finished.search.config.latency
    assert target is not None
    networks = brought_to_target(
        [one.spec for one in samples], are_known=[one.reward is None for one in samples], finished=finished
    )
    return [
        Candidate(sample.name, spec, ms, sample.reward, sample.drawn)
        for sample, (spec, ms) in zip(samples, networks, strict=True)
        if target.miss(ms) == 0
    ]
