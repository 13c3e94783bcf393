"""The candidates of a derivation: whom the search favours, random ones, neighbours of known networks, and these.

With a latency target all meet it, as measured side by side, at widths fitted to it; without one there is no size at
which a known network would be a fair candidate, and none takes part. Knows nothing of training.
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

# How many are fitted for each that is wanted, for not all have a width that meets the target.
_TRIED = 1.5
# Multiply-adds a millisecond, as a share of the most among the candidates. In two derivations of twelve networks on
# Fashion-MNIST all five below it were among the last four by training loss.
_LEAST_RATE = 0.5
# Of a rung's best.
_DESCENDANTS_OF_EACH = 3


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
    drawn: Spec | None = None
    """As the search's space holds it, before its widths were fitted; None where it does not."""

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
    """Samples of the search, and the known networks, all measured to meet the target; without one, the samples alone.

    Raises: ConfigError: nothing meets the target. BenchmarkError: see `measure`.
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
    """Neighbours of the first of those ranked, measured to meet the target: `config.num_descendants`, or fewer.

    Only of those that the search's space holds at some width. Raises: BenchmarkError: see `measure`.
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


def known_networks(profiled: Profiled) -> dict[str, Spec]:
    """The published networks as latency targets name them, and on larger maps, where the same time makes them narrower.

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
    """Those that have widths at which they meet the target, as measured."""
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
