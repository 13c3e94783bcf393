"""From a trained policy and supernet to one architecture.

Knows of a policy, and of scoring architectures with shared weights through a learner.
"""

# n architectures

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foundation.document import ConfigError
from foundation.seeds import numpy_generator, stream_seed
from searcher.arch.space import Space
from searcher.controller.policy import Policy
from searcher.running.distributed import ALONE, World
from searcher.training.learner import Learner

_MOST_DRAWS = 50


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
    """The architecture chosen, and what is known of the choice. Rewards are the learner's."""

    architecture: Any
    reward: float
    """Of the chosen one: on the whole validation split, or on the minibatches if there was no final."""
    sampled_rewards: tuple[float, ...]
    """Of every different architecture drawn, on the minibatches."""
    finalist_rewards: tuple[float, ...]
    """Of the finalists, on the whole validation split."""


def score(
    learner: Learner,
    supernet: nn.Module,
    architectures: Sequence[Any],
    batches: Sequence[Any],
    *,
    world: World = ALONE,
) -> Tensor:
    """The reward of each architecture on the same validation minibatches with the shared weights: [n] float32.

    Nothing is augmented or dropped. The architectures are shared out over the ranks.
    """
    if supernet.training:  # it has thousands of modules to tell
        supernet.eval()
    mine = architectures[world.part(len(architectures))]
    rewards = [learner.reward(bind(supernet, architecture), batches) for architecture in mine]
    device = next(supernet.parameters()).device
    part = torch.stack(rewards) if rewards else torch.zeros(0, device=device)
    return world.whole(part, len(architectures))


def bind(supernet: nn.Module, architecture: Any) -> Callable[..., Any]:
    """The child model of an architecture."""
    return partial(supernet, architecture=architecture)


def derive(
    policy: Policy,
    space: Space,
    supernet: nn.Module,
    learner: Learner,
    config: DeriveConfig,
    *,
    seed: int,
    miss: Callable[[Any], float] | None = None,
    world: World = ALONE,
    on_score: Callable[[], None] = lambda: None,
) -> Derived:
    """Choose the architecture to retrain. The ranks score an architecture each at a time.

    miss: see `sample_candidates`. on_score: called after each architecture scored; it may raise to stop.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "derive", "architectures"))
    candidates = sample_candidates(policy, space, config.num_samples, miss=miss, generator=generator, world=world)
    minibatches = learner.reward_batches(_examples(seed), count=config.num_batches)
    rewards: list[float] = []
    for group in _groups(candidates, world.size):
        rewards += score(learner, supernet, group, minibatches, world=world).tolist()
        for _ in group:
            on_score()
    finalists = sorted(range(len(candidates)), key=lambda i: -_worth(rewards[i]))[: config.num_finalists]
    if len(finalists) == 1:
        (best,) = finalists
        return Derived(candidates[best], rewards[best], tuple(rewards), ())
    finals: list[float] = []
    for group in _groups([candidates[i] for i in finalists], world.size):
        mine = group[world.part(len(group))]
        part = [learner.whole_reward(bind(supernet, architecture), _examples(seed)) for architecture in mine]
        finals += world.whole(torch.tensor(part, dtype=torch.float64), len(group)).tolist()
        for _ in group:
            on_score()
    first = max(range(len(finals)), key=lambda i: _worth(finals[i]))
    return Derived(candidates[finalists[first]], finals[first], tuple(rewards), tuple(finals))


def sample_candidates(
    policy: Policy,
    space: Space,
    count: int,
    *,
    miss: Callable[[Any], float] | None,
    generator: torch.Generator,
    world: World = ALONE,
) -> list[Any]:
    """Up to `count` different architectures from a policy.

    miss: how far an architecture lies from what is asked for, 0 for nothing; then draws go on, within bounds, until
    enough lie at 0. Where none does, the nearest are taken.
    """
    drawn: dict[Any, float] = {}
    for _ in range(1 if miss is None else _MOST_DRAWS):
        with torch.no_grad():
            tokens = policy.sample(count, generator=generator).tokens
        world.broadcast([tokens])  # all ranks must count the same candidates, whatever their last bits are
        new = dict.fromkeys(space.from_tokens(row) for row in tokens.tolist())
        drawn |= {one: 0.0 if miss is None else miss(one) for one in new if one not in drawn}
        admitted = [one for one, distance in drawn.items() if distance == 0]
        if len(admitted) >= count:
            break
    return (admitted or sorted(drawn, key=drawn.__getitem__))[:count]


def num_scorings(config: DeriveConfig) -> int:
    """How often `derive` calls `on_score`, at most."""
    return config.num_samples + (config.num_finalists if config.num_finalists > 1 else 0)


def _groups(architectures: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [architectures[start : start + size] for start in range(0, len(architectures), size)]


def _worth(reward: float) -> float:
    """A reward as comparisons take it: minus infinity in place of nan, so that any other reward is better."""
    return -math.inf if math.isnan(reward) else reward


def _examples(seed: int) -> np.random.Generator:
    """Chooses the validation examples, the same for every architecture."""
    return numpy_generator(seed, "derive", "examples")
