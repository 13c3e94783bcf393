"""Predictors of how good an architecture is after long training: shared weights, short trainings, costs.

Each predictor scores a pool of architectures; `ranking.py` finds how far its order agrees with that of the trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.latency.measure import measure
from exporter.selection.standings import Showing, rank
from foundation.seeds import numpy_generator
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification
from searcher.nn.complexity import complexity_of
from searcher.training.derive import bind
from searcher.training.loop import Search


@dataclass(frozen=True)
class Predictor:
    """A score for every architecture of a pool, known before the long training."""

    name: str
    scores: tuple[float, ...]
    """Higher is better."""


def shared_weights(search: Search, specs: Sequence[Spec]) -> Predictor:
    """Rewards on the first half of valid with the search's shared weights."""

    def reward(spec: Spec) -> float:
        examples = numpy_generator(search.config.seed, "ranking", "examples")
        child = bind(search.supernet.eval(), spec.architecture)
        return search.learner.whole_reward(child, examples, half="first")

    return Predictor("shared weights", tuple(map(reward, specs)))


def short_training(epochs: int, showings: Sequence[Showing], *, metric: str, count: int) -> Predictor:
    """The order of architectures after a derivation's rung of `epochs`, see `standings.rank`: 0 for the first, -1 for
    the second. Args: count: number of images in the showings' scores."""
    order = rank({str(number): one for number, one in enumerate(showings)}, metric=metric, count=count)
    places = {name: -place for place, name in enumerate(order)}
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return Predictor(f"{passes} of training", tuple(float(places[str(number)]) for number in range(len(showings))))


def costs(specs: Sequence[Spec]) -> Iterator[Predictor]:
    """The costs of networks, which are predictors, too: larger networks are mostly better. Latency, for images only, is
    at batch 1 on one thread."""
    totals = [complexity_of(spec).total for spec in specs]
    yield Predictor("parameters", tuple(float(total.parameters) for total in totals))
    yield Predictor("multiply-adds", tuple(float(total.multiply_adds) for total in totals))
    if isinstance(specs[0].task, ImageClassification):
        yield Predictor("latency", tuple(one.value for one in measure(specs).ms))
