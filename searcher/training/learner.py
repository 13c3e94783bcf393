"""The interface between a task and the loops of search and retraining: its data, loss and score.

`ImageLearner` and `TextLearner` implement it. A loop passes networks as functions of a batch's inputs, with everything
else that they need (an architecture) already bound.
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
"""A half of a split. The halves are disjoint and always the same: a choice made on one can be judged on the other."""


@dataclass(frozen=True)
class StepLoss:
    """The result of a training batch."""

    loss: Tensor
    """Scalar to differentiate."""
    measured: Tensor
    """Scalar, a sum over the batch: correct answers for images, nats for text."""
    count: int
    """Images, or tokens."""


class Learner(Protocol):
    """A task with its training and validation data on one device."""

    metric: str
    """The metric of `score`: accuracy or perplexity."""
    criterion: str
    """The metric that chooses epochs: `metric`, or balanced_accuracy."""
    network_options: dict[str, Any]
    """Arguments that its training adds to the construction of a network."""
    steps_per_epoch: int

    def batches(self, *, epoch: int, start_step: int) -> Iterator[Any]:
        """Yields the training batches of an epoch, from `start_step` on."""
        ...

    def loss(self, network: Network, batch: Any, *, progress: float) -> StepLoss:
        """Runs one forward pass. progress: share of the whole training that is done after this step, in [0, 1].

        At 0 no path is dropped.
        """
        ...

    def record(self, mean_loss: float, mean_measured: float) -> dict[str, float]:
        """An epoch's training figures by name."""
        ...

    def norm_batches(self, generator: np.random.Generator, *, count: int) -> Sequence[Any]:
        """Returns random training batches of about `count` examples in total, not augmented."""
        ...

    def state(self) -> dict[str, Any]:
        """Returns the state that a checkpoint needs to resume within an epoch."""
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
        """The highest reward of answers that ignore the input, on all of valid or on `num_batches` minibatches."""
        ...

    def score(self, network: Network, split: str, *, half: Half | None = None) -> Score:
        """A trained network's score on a whole split, or on a half of it, in full float32."""
        ...


@dataclass(frozen=True)
class Score:
    """A network's score on a whole split."""

    value: float
    """The value of the metric."""
    count: int
    """Number of images or tokens; for a half of a text, exact to within one token per stream."""
    loss: float
    """Mean cross entropy of the answers in nats, with training's label smoothing but without its class weights; it
    breaks ties of the metric."""
    balanced: float | None = None
    """Balanced accuracy, in [0, 1]; None unless there are classes, with sizes so unequal that accuracy misleads."""
    balanced_error: float | None = None
    """Standard error of `balanced`."""


def more_is_better(metric: str) -> bool:
    """Whether larger values of a metric are better."""
    return metric in ("accuracy", BALANCED)


def measured(criterion: str, score: Score) -> float:
    """Returns a score's value by a learner's criterion; the metric's value if the score has no balanced accuracy."""
    if criterion == BALANCED and score.balanced is not None:
        return score.balanced
    return score.value


def is_better(criterion: str, score: Score, than: Score | None) -> bool:
    """Whether a score is better than another, or the first one; a score whose loss is not finite never is."""
    if not math.isfinite(score.loss):
        return False
    if than is None:
        return True
    found, other = measured(criterion, score), measured(criterion, than)
    return score.loss < than.loss if found == other else (found > other) == more_is_better(criterion)


def is_no_worse(criterion: str, score: Score, than: Score | None) -> bool:
    """Whether a later epoch's score is better than the best so far, or at most one standard error of accuracy below it.

    A split of 1,000 images determines an accuracy to one percent. Of the many epochs within that margin the highest is
    only the luckiest, while the last ones have the smallest learning rates. Perplexities, over many more tokens, have
    no such margin. Source: Breiman et al. 1984, "Classification and Regression Trees", the one-standard-error rule.
    """
    if not more_is_better(criterion) or than is None or not math.isfinite(score.loss):
        return is_better(criterion, score, than)
    if criterion == BALANCED and than.balanced is not None:
        error = than.balanced_error or 0.0  # earlier checkpoints have none
    else:
        error = math.sqrt(than.value * (1 - than.value) / than.count)
    return measured(criterion, score) >= measured(criterion, than) - error
