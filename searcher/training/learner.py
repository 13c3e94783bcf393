"""What is learnt, from which data, and how it is scored: what the loops of search and retraining ask of a task.

`ImageLearner` and `TextLearner` are the two there are. A loop hands in networks as functions of a batch's inputs, with
whatever else they need (an architecture) bound already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

Network = Callable[..., Any]

BALANCED = "balanced_accuracy"

Half = Literal["first", "second"]
"""Of a split, disjoint and always the same: what is chosen on one can be judged on the other."""


@dataclass(frozen=True)
class StepLoss:
    """What a training batch gave."""

    loss: Tensor
    """Scalar to be differentiated."""
    measured: Tensor
    """Scalar, a sum over the batch: correct answers of images, nats of text."""
    count: int
    """Images, or tokens."""


class Learner(Protocol):
    """A task with its training and validation data on one device."""

    metric: str
    """What `score` gives: accuracy or perplexity."""
    criterion: str
    """What epochs are chosen by: the metric, or balanced_accuracy."""
    network_options: dict[str, Any]
    """What its training asks of the building of a network."""
    steps_per_epoch: int

    def batches(self, *, epoch: int, start_step: int) -> Iterator[Any]:
        """The training batches of an epoch from a step on."""
        ...

    def loss(self, network: Network, batch: Any, *, progress: float) -> StepLoss:
        """One forward pass. progress: the part of the whole training that is done after this step, in [0, 1].

        At 0 no path is dropped.
        """
        ...

    def record(self, mean_loss: float, mean_measured: float) -> dict[str, float]:
        """An epoch's training figures by name."""
        ...

    def norm_batches(self, generator: np.random.Generator, *, count: int) -> Sequence[Any]:
        """Random training batches of about `count` examples in all, as they are: nothing augmented."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold to go on within an epoch."""
        ...

    def load(self, state: dict[str, Any]) -> None: ...

    def reward_batch(self, generator: np.random.Generator) -> Any:
        """A validation minibatch, on which a policy step scores its architectures."""
        ...

    def reward_batches(self, generator: np.random.Generator, *, count: int) -> Sequence[Any]:
        """`count` different validation minibatches, or as many as there are."""
        ...

    def reward(self, network: Network, batches: Sequence[Any]) -> Tensor:
        """The reward of a network on validation minibatches: scalar, larger is better."""
        ...

    def whole_reward(self, network: Network, generator: np.random.Generator, *, half: Half | None = None) -> float:
        """The reward of a supernet's child on all of valid, or on a half of it."""
        ...

    def chance_reward(self, *, num_batches: int | None = None) -> float:
        """The most that answers which do not depend on the input earn, on all of valid or on that many minibatches."""
        ...

    def score(self, network: Network, split: str, *, half: Half | None = None) -> Score:
        """A trained network's score on a whole split, or on a half of it, in full float32."""
        ...


@dataclass(frozen=True)
class Score:
    """A network's score on a whole split."""

    value: float
    """Of the metric."""
    count: int
    """Images or tokens that it is over; of a half of a text to within a token a stream."""
    loss: float
    """Mean cross entropy of the answers in nats, with training's label smoothing but without its class weights; it
    tells apart what the metric finds equal."""
    balanced: float | None = None
    """Balanced accuracy, in [0, 1]; None unless there are classes, and so unequal ones that accuracy misleads."""
    balanced_error: float | None = None
    """Its standard error."""


def more_is_better(metric: str) -> bool:
    """Whether larger values of a metric are the better ones."""
    return metric in ("accuracy", BALANCED)


def measured(criterion: str, score: Score) -> float:
    """A score's value of a learner's criterion: the metric's for want of a balanced one."""
    if criterion == BALANCED and score.balanced is not None:
        return score.balanced
    return score.value


def is_better(criterion: str, score: Score, than: Score | None) -> bool:
    """Whether a score beats another, or is the first; one whose loss is not finite never does."""
    if not math.isfinite(score.loss):
        return False
    if than is None:
        return True
    found, other = measured(criterion, score), measured(criterion, than)
    return score.loss < than.loss if found == other else (found > other) == more_is_better(criterion)


def is_no_worse(criterion: str, score: Score, than: Score | None) -> bool:
    """Whether a later epoch's score is better than the best one so far, or a standard error of its accuracy below it.

    A split of 1,000 images knows an accuracy to one percent, and of the many epochs within that the highest is only the
    luckiest, while the last ones have the smallest learning rates. Perplexities, of many more tokens, have no such
    margin. Source: Breiman et al. 1984, "Classification and Regression Trees", the one-standard-error rule.
    """
    if not more_is_better(criterion) or than is None or not math.isfinite(score.loss):
        return is_better(criterion, score, than)
    if criterion == BALANCED and than.balanced is not None:
        error = than.balanced_error or 0.0  # earlier checkpoints have none
    else:
        error = math.sqrt(than.value * (1 - than.value) / than.count)
    return measured(criterion, score) >= measured(criterion, than) - error
