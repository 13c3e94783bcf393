"""Who leads after a rung: valid says, as far as it can, and among those that it cannot tell apart the training itself.

A thousand images know an accuracy to one point, where networks of the same latency differ by half of one. Loss and
accuracy over the last pass through train are of many times as many, and in so short a training nothing is learnt by
heart. Both count: a loss with smoothed labels is also low where answers are merely as unsure as they should be.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searcher.training.learner import more_is_better


@dataclass(frozen=True)
class Showing:
    """What a short training showed."""

    score: float | None
    """The metric on valid, in the epoch chosen; None where the training diverged."""
    loss: float | None
    """The mean training loss of the last epoch; None where it is not known."""
    accuracy: float | None = None
    """The training accuracy of the last epoch; None where it is not known."""


def showing_of(training: Mapping[str, Any]) -> Showing:
    """Of a training's summary, see `trainings.score_job`."""
    return Showing(training["valid_score"], training.get("train_loss"), training.get("train_accuracy"))


def rank(showings: Mapping[str, Showing], *, metric: str, count: int) -> list[str]:
    """The best first: those whose accuracy is within two standard errors of the best one, by their places among each
    other in training loss and in training accuracy together; then the others by score. Of other metrics than accuracy
    no error is known, and the score decides.

    The best of ten accuracies is the luckiest, too: within one standard error of it, the network that trained best by
    far can be missing. Args: count: images of valid.
    Source: Ru et al. 2021, "Speedy Performance Estimation for Neural Architecture Search", for the loss of training.
    """
    worths = {name: _worth(showing.score, metric) for name, showing in showings.items()}
    best = max(worths.values())
    margin = 2 * math.sqrt(2 * best * (1 - best) / count) if metric == "accuracy" and math.isfinite(best) else 0.0

    tied = [name for name, worth in worths.items() if worth >= best - margin]
    by_loss = _places({name: showings[name].loss for name in tied})
    by_accuracy = _places({name: showings[name].accuracy for name in tied}, sign=-1)

    def place(name: str) -> tuple[bool, int, int, float]:
        if name not in by_loss:
            return True, 0, 0, -worths[name]
        return False, by_loss[name] + by_accuracy[name], by_loss[name], -worths[name]

    return sorted(showings, key=place)


def _places(values: Mapping[str, float | None], *, sign: int = 1) -> dict[str, int]:
    """How many values are below each one's, or above with sign -1; of an unknown one, how many are known."""
    known = [sign * value for value in values.values() if value is not None]
    return {
        name: len(known) if value is None else sum(other < sign * value for other in known)
        for name, value in values.items()
    }


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
