"""Ranks candidates after a rung: by valid, and by the training itself where valid cannot distinguish them.

A thousand images determine an accuracy to one point, while networks of the same latency differ by half a point. Loss
and accuracy over the last pass through train are over many times more images, and so short a training does not overfit.
Both count: a loss with smoothed labels is also low if answers are merely as uncertain as the labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searcher.training.learner import more_is_better


@dataclass(frozen=True)
class Showing:
    """The result of a short training."""

    score: float | None
    """The metric on valid, in the chosen epoch; balanced accuracy if that chose it. None if the training diverged."""
    loss: float | None
    """The mean training loss of the last epoch; None if unknown."""
    accuracy: float | None = None
    """The training accuracy of the last epoch; None if unknown."""
    error: float | None = None
    """The standard error of a balanced accuracy; None for the other metrics."""


def showing_of(training: Mapping[str, Any]) -> Showing:
    """Returns the result in a training's summary, see `trainings.score_job`."""
    keys = ("train_loss", "train_accuracy", "valid_error")
    return Showing(training["valid_score"], *(training.get(key) for key in keys))


def rank(showings: Mapping[str, Showing], *, metric: str, count: int) -> list[str]:
    """Returns the names, best first: those whose accuracy is within two standard errors of the best, by the sum of
    their places in training loss and in training accuracy; then the others by score. For metrics other than accuracy
    no error is known, and the score decides.

    The best of ten accuracies is also the luckiest: a margin of one standard error can exclude the network that trained
    best by far. Args: count: images of valid.
    Source: Ru et al. 2021, "Speedy Performance Estimation for Neural Architecture Search", for the loss of training.
    """
    worths = {name: _worth(showing.score, metric) for name, showing in showings.items()}
    leader = max(worths, key=lambda name: worths[name])
    best, error = worths[leader], showings[leader].error
    if error is None:
        error = math.sqrt(best * (1 - best) / count) if metric == "accuracy" and math.isfinite(best) else 0.0
    margin = 2 * math.sqrt(2) * error

    tied = [name for name, worth in worths.items() if worth >= best - margin]
    by_loss = _places({name: showings[name].loss for name in tied})
    by_accuracy = _places({name: showings[name].accuracy for name in tied}, sign=-1)

    def place(name: str) -> tuple[bool, int, int, float]:
        if name not in by_loss:
            return True, 0, 0, -worths[name]
        return False, by_loss[name] + by_accuracy[name], by_loss[name], -worths[name]

    return sorted(showings, key=place)


def _places(values: Mapping[str, float | None], *, sign: int = 1) -> dict[str, int]:
    """Returns for each name how many values are below its own, or above with sign -1; all known ones if it is None."""
    known = [sign * value for value in values.values() if value is not None]
    return {
        name: len(known) if value is None else sum(other < sign * value for other in known)
        for name, value in values.items()
    }


def kept_of(ranked: Sequence[str], count: int, *, known: Collection[str]) -> list[str]:
    """Returns the names kept for the next rung: the first `count`. If no known network is among them, the best known
    one replaces the last.

    A short training predicts a long one poorly, and the choice must not be worse than the networks known before.
    """
    kept = list(ranked[:count])
    best_known = next((name for name in ranked if name in known), None)
    if best_known is not None and best_known not in kept:
        kept[-1] = best_known
    return kept


def _worth(score: float | None, metric: str) -> float:
    """Returns a value that is larger for a better score; minus infinity for None."""
    if score is None:
        return -math.inf
    return score if more_is_better(metric) else -score
