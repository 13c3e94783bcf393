"""Who leads after a rung: valid says, as far as it can, and among those that it cannot tell apart the training loss.

A thousand images know an accuracy to one point, where networks of the same latency differ by half of one. The mean loss
over the last pass through train is of many times as many, and in so short a training nothing is learnt by heart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from searcher.training.learner import more_is_better


@dataclass(frozen=True)
class Showing:
    """What a short training showed."""

    score: float | None
    """The metric on valid, in the epoch chosen; None where the training diverged."""
    loss: float | None
    """The mean training loss of the last epoch; None where it is not known."""


def rank(showings: Mapping[str, Showing], *, metric: str, count: int) -> list[str]:
    """The best first: by loss those whose accuracy is within two standard errors of the best one, then the others by
    score. Of other metrics than accuracy no error is known, and the score decides.

    The best of ten accuracies is the luckiest, too: within one standard error of it, the network that trained best by
    far can be missing. Args: count: images of valid.
    Source: Ru et al. 2021, "Speedy Performance Estimation for Neural Architecture Search", for the loss of training.
    """
    worths = {name: _worth(showing.score, metric) for name, showing in showings.items()}
    best = max(worths.values())
    margin = 2 * math.sqrt(2 * best * (1 - best) / count) if metric == "accuracy" and math.isfinite(best) else 0.0

    def place(name: str) -> tuple[bool, float, float]:
        is_tied = worths[name] >= best - margin
        loss = showings[name].loss
        return not is_tied, math.inf if loss is None or not is_tied else loss, -worths[name]

    return sorted(showings, key=place)


def kept_of(ranked: Sequence[str], count: int, *, known: Collection[str]) -> list[str]:
    """Who goes on to the next rung: the first `count`, of whom the last gives way to the best known network, should
    none be among them.

    A short training says little of a long one, and the choice must not be worse than what was known before the search.
    """
    kept = list(ranked[:count])
    best_known = next((name for name in ranked if name in known), None)
    if best_known is not None and best_known not in kept:
        kept[-1] = best_known
    return kept


def _worth(score: float | None, metric: str) -> float:
    """More for the better of two scores; least for none."""
    if score is None:
        return -math.inf
    return score if more_is_better(metric) else -score
