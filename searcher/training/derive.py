"""Derives one architecture from a trained policy and supernet.

Knows a policy, and how to score architectures with shared weights through a learner.
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
    """Best samples, scored again on the whole validation split; 1 skips this, as the paper does."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_batches", "num_finalists"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")


PAPER_DERIVATION = DeriveConfig(num_samples=10, num_batches=1, num_finalists=1)
"""As published: the best of a few on a single minibatch."""


@dataclass(frozen=True)
class Derived:
    """The chosen architecture, and the rewards behind the choice, as the learner defines them."""

    architecture: Any
    reward: float
    """The chosen architecture's: on the whole validation split, or on the minibatches if only one was a finalist."""
    sampled_rewards: tuple[float, ...]
    """One for each distinct architecture drawn, on the minibatches."""
    finalist_rewards: tuple[float, ...]
    """One for each finalist, on the whole validation split; empty if only one was a finalist."""


def score(
    learner: Learner,
    supernet: nn.Module,
    architectures: Sequence[Any],
    batches: Sequence[Any],
    *,
    world: World = ALONE,
) -> Tensor:
    """Returns the reward of each architecture on the same validation minibatches with the shared weights: [n] float32.

    Nothing is augmented or dropped. The ranks divide the architectures among themselves.
    """
    if supernet.training:  # checked first, since `eval` visits thousands of modules
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
    """Chooses the architecture to retrain. Each rank scores one architecture at a time.

    miss: see `sample_candidates`. on_score: called after each scored architecture; it may raise to stop.
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
    """Returns up to `count` distinct architectures sampled from a policy.

    miss: distance of an architecture from the target, 0 if it meets the target. If given, sampling repeats, within
    bounds, until enough architectures have distance 0; if none has, the nearest ones are returned.
    """
    drawn: dict[Any, float] = {}
    for _ in range(1 if miss is None else _MOST_DRAWS):
        with torch.no_grad():
            tokens = policy.sample(count, generator=generator).tokens
        world.broadcast([tokens])  # all ranks need the same candidates, even if their policies differ in the last bits
        new = dict.fromkeys(space.from_tokens(row) for row in tokens.tolist())
        drawn |= {one: 0.0 if miss is None else miss(one) for one in new if one not in drawn}
        admitted = [one for one, distance in drawn.items() if distance == 0]
        if len(admitted) >= count:
            break
    return (admitted or sorted(drawn, key=drawn.__getitem__))[:count]


def num_scorings(config: DeriveConfig) -> int:
    """Returns the most times that `derive` calls `on_score`."""
    return config.num_samples + (config.num_finalists if config.num_finalists > 1 else 0)


def _groups(architectures: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [architectures[start : start + size] for start in range(0, len(architectures), size)]


def _worth(reward: float) -> float:
    """Returns a reward for comparisons: minus infinity instead of nan, so that any other reward is better."""
    return -math.inf if math.isnan(reward) else reward


def _examples(seed: int) -> np.random.Generator:
    """Returns the generator that chooses the validation examples, the same ones for every architecture."""
    return numpy_generator(seed, "derive", "examples")
