"""From a trained policy and supernet to one architecture.

Knows of a policy, of scoring architectures with shared weights, and of validation images.
"""

# B batch, n architectures

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.batches import ImageBatches
from datasets.seeds import numpy_generator, stream_seed
from searcher.arch.document import ConfigError
from searcher.arch.spaces import Space
from searcher.controller.policy import Policy
from searcher.training.device import Precision
from searcher.training.epoch import correct_answers


@dataclass(frozen=True)
class DeriveConfig:
    """Sample, score all on the same few minibatches, score the best on all of valid, take the best of those."""

    num_samples: int = 100
    """Architectures drawn from the policy; repeated ones count once. Paper: "several"."""
    num_batches: int = 10
    """Validation minibatches on which all are scored. Paper: 1."""
    num_finalists: int = 10
    """Of them, scored on the whole validation split; 1 leaves this out, as the paper does."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_batches", "num_finalists"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")


PAPER_DERIVATION = DeriveConfig(num_samples=10, num_batches=1, num_finalists=1)
"""As published: the best of a few on a single minibatch."""


@dataclass(frozen=True)
class Derived:
    """The architecture chosen, and what is known of the choice. Rewards are accuracies in [0, 1]."""

    architecture: Any
    reward: float
    """Of the chosen one: on the whole validation split, or on the minibatches if there was no final."""
    sampled_rewards: tuple[float, ...]
    """Of every different architecture drawn, on the minibatches."""
    finalist_rewards: tuple[float, ...]
    """Of the finalists, on the whole validation split."""


def score(
    supernet: nn.Module, architectures: Sequence[Any], images: Tensor, labels: Tensor, *, precision: Precision = "auto"
) -> Tensor:
    """The accuracy of each architecture on one minibatch with the shared weights: [n] float32, in [0, 1].

    Nothing is augmented or dropped, and norms use the minibatch's statistics.
    """
    answers = [_correct(supernet, architecture, images, labels, precision) for architecture in architectures]
    return torch.stack([correct.float().mean() for correct in answers])


def derive(
    policy: Policy,
    space: Space,
    supernet: nn.Module,
    valid: ImageBatches,
    config: DeriveConfig,
    *,
    batch_size: int,
    seed: int,
    precision: Precision = "auto",
    on_score: Callable[[], None] = lambda: None,
) -> Derived:
    """Choose the architecture to retrain. `on_score` is called after each architecture scored; it may raise to stop."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "derive", "architectures"))
    with torch.no_grad():
        tokens = policy.sample(config.num_samples, generator=generator).tokens
    candidates = list(dict.fromkeys(space.from_tokens(row) for row in tokens.tolist()))

    def scored(architecture: Any, batches: Sequence[_CountedBatch]) -> float:
        answers = [
            _correct(supernet, architecture, images, labels, precision)[-count:] for images, labels, count in batches
        ]
        on_score()
        return torch.cat(answers).double().mean().item()

    minibatches = list(_minibatches(valid, batch_size=batch_size, count=config.num_batches, seed=seed))
    rewards = [scored(architecture, minibatches) for architecture in candidates]
    finalists = sorted(range(len(candidates)), key=lambda i: -rewards[i])[: config.num_finalists]
    if len(finalists) == 1:
        (best,) = finalists
        return Derived(candidates[best], rewards[best], tuple(rewards), ())
    whole = list(_whole(valid, batch_size=batch_size, seed=seed))
    finals = [scored(candidates[i], whole) for i in finalists]
    best = finalists[finals.index(max(finals))]
    return Derived(candidates[best], max(finals), tuple(rewards), tuple(finals))


def num_scorings(config: DeriveConfig) -> int:
    """How often `derive` calls `on_score`, at most."""
    return config.num_samples + (config.num_finalists if config.num_finalists > 1 else 0)


_CountedBatch = tuple[Tensor, Tensor, int]
"""Images, labels, and how many of the last of them count."""


def _correct(supernet: nn.Module, architecture: Any, images: Tensor, labels: Tensor, precision: Precision) -> Tensor:
    supernet.eval()
    return correct_answers(lambda x: supernet(x, architecture)[0], images, labels, precision=precision)


def _minibatches(valid: ImageBatches, *, batch_size: int, count: int, seed: int) -> Iterator[_CountedBatch]:
    """`count` different minibatches of valid images, or as many as there are."""
    size = min(batch_size, valid.num_images)
    order = _mixed(valid, seed=seed)
    for start in range(0, min(count * size, valid.num_images - size + 1), size):
        yield *valid.batch(order[start : start + size]), size


def _whole(valid: ImageBatches, *, batch_size: int, seed: int) -> Iterator[_CountedBatch]:
    """The whole split in mixed batches of one size, since norms use the batch's statistics.

    The last batch reaches back over images already seen; only its last `count` are to be counted.
    """
    size = min(batch_size, valid.num_images)
    order = _mixed(valid, seed=seed)
    for start in range(0, valid.num_images, size):
        stop = min(start + size, valid.num_images)
        yield *valid.batch(order[stop - size : stop]), stop - start


def _mixed(valid: ImageBatches, *, seed: int) -> np.ndarray:
    """All images in an order that does not depend on how they are stored: one class after the other, perhaps."""
    return numpy_generator(seed, "derive", "images").permutation(valid.num_images)
