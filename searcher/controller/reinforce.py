"""REINFORCE: how rewards become a gradient of the policy.

The reward of an architecture is computed from its child model on validation data, with the supernet's weights: the
accuracy of an image classifier, or 80 divided by the perplexity of a language model.
Source: Pham et al. 2018, section 2.2.
"""

# B architectures of one policy step, N candidates of a layer's skips

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foundation.document import ConfigError
from searcher.controller.policy import Sample


@dataclass(frozen=True)
class ReinforceConfig:
    """The policy's loss and optimiser."""

    learning_rate: float = 3.5e-3
    """Adam's. Paper: 3.5e-4; the authors' micro code: 3.5e-3."""
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    """Authors' code: 0, 0.999."""
    adam_eps: float = 1e-8
    """Authors' code: 1e-3."""
    baseline: Literal["leave_one_out", "moving_average"] = "leave_one_out"
    """Subtracted from a reward: the mean of the step's other rewards, or an average over past steps (paper)."""
    baseline_decay: float = 0.99
    """Decay of the moving average for each rewarded architecture."""
    ramp_epochs: float = 0.0
    """The learning rate rises from 0 over this many epochs after the first step. Source: Bender et al. 2020 (TuNAS)."""
    entropy_weight: float = 1e-4
    """Reward for each nat of entropy. Paper: 0.1 for convolutional networks."""
    entropy_in: Literal["loss", "reward"] = "loss"
    """loss: differentiated, a bonus that flattens the policy. reward: a constant in the reward (paper and code)."""
    entropy_reduction: Literal["sum", "mean"] = "sum"
    """Over an architecture's decisions."""
    skip_weight: float = 0.0
    """Weight of the penalty on skips; see `skip_penalty`. Paper and the authors' macro code: 0.8."""
    skip_target: float = 0.4
    """The probability of a skip at which the penalty is 0. Paper and code: 0.4."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ConfigError(f"adam_betas are {list(self.adam_betas)}; expected two from 0 up to, not including, 1")
        for name in ("adam_eps", "entropy_weight", "skip_weight", "ramp_epochs"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.baseline_decay < 1:
            raise ConfigError(f"baseline_decay is {self.baseline_decay}; expected 0 up to, not including, 1")
        if not 0 < self.skip_target < 1:
            raise ConfigError(f"skip_target is {self.skip_target}; it must lie between 0 and 1")


class Baseline:
    """The baseline of rewards. `value` is the moving average, nan before the first rewards."""

    def __init__(self, config: ReinforceConfig) -> None:
        self._config = config
        self.value = math.nan

    def __call__(self, rewards: Tensor) -> Tensor:
        """Returns the baseline of each of the rewards [B], then adds their mean to the moving average.

        The average decays once for each reward, because the authors' code updates it with every architecture.
        Raises: ValueError: leave-one-out needs at least two rewards.
        """
        mean = rewards.mean().item()
        first = math.isnan(self.value)
        before = mean if first else self.value
        decay = self._config.baseline_decay ** len(rewards)
        self.value = mean if first else decay * self.value + (1 - decay) * mean
        if self._config.baseline == "moving_average":
            return torch.full_like(rewards, before)
        if len(rewards) < 2:
            raise ValueError("the leave-one-out baseline needs at least two architectures a policy step")
        return (rewards.sum() - rewards) / (len(rewards) - 1)


def reinforce_loss(sample: Sample, rewards: Tensor, *, baseline: Baseline, config: ReinforceConfig) -> Tensor:
    """The loss whose gradient is the REINFORCE estimate, averaged over the batch.

    Args: rewards: [B]. Returns: scalar.
    Raises: ValueError: a reward is not finite.
    Source: Pham et al. 2018, section 2.2. The authors' code calls the negative of our log_prob `log_prob`.
    """
    if not torch.isfinite(rewards).all():
        raise ValueError("a reward is not finite")
    num_decisions = sample.tokens.shape[1]
    entropy = sample.entropy / num_decisions if config.entropy_reduction == "mean" else sample.entropy
    if config.entropy_in == "reward":
        rewards = rewards + config.entropy_weight * entropy.detach()
    advantage = rewards - baseline(rewards)
    loss = -(advantage * sample.log_prob).mean()
    if config.entropy_in == "loss":
        loss = loss - config.entropy_weight * entropy.mean()
    if config.skip_weight > 0 and sample.skip_probs:
        loss = loss + config.skip_weight * skip_penalty(sample.skip_probs, target=config.skip_target).mean()
    return loss


def skip_penalty(skip_probs: Sequence[Tensor], *, target: float) -> Tensor:
    """Returns the Kullback-Leibler divergence of the probabilities of skips from `target`, nats.

    Summed over the candidates of a layer, averaged over the layers that have candidates.
    Args: skip_probs: for each such layer [B, N]; see `Sample`. Returns: [B].
    Source: Pham et al. 2018, section 2.3, and the authors' code, which penalises sigmoid(q) but draws with sigmoid(2q);
    here the penalty uses the probability with which skips are drawn.
    """
    # Probabilities of 0 and 1 in float32 would contribute 0 · log 0, whose gradient is not a number.
    least = torch.finfo(torch.float32).eps
    uncertain = [probs.clamp(least, 1 - least) for probs in skip_probs]
    divergences = [p * torch.log(p / target) + (1 - p) * torch.log((1 - p) / (1 - target)) for p in uncertain]
    return torch.stack([divergence.sum(dim=1) for divergence in divergences]).mean(dim=0)
