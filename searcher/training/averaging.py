"""The running average of a network's weights, and the norms' statistics that belong to given weights.

Knows of networks, and of a learner's training batches; which weights count in the end is for others to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from searcher.running.distributed import ALONE, World
from searcher.training.learner import Learner


class WeightAverage:
    """An average of a network's weights over its steps, whose horizon is a constant share of the steps done.

    A horizon of fixed length is wrong for most trainings: one of less than that many steps keeps its first, random
    weights, and one of far more gains little. This one grows from a single step, so that nothing of the weights before
    the first step remains, to the share of all steps; see `horizon`. A share of 1 is the plain mean.

    torch's `AveragedModel` copies all buffers, and waits for the device, at every step.
    """

    def __init__(self, network: nn.Module, *, share: float) -> None:
        """share: in (0, 1]."""
        self.network = deepcopy(network).requires_grad_(False)
        """With the average's weights, and with buffers of its own, see `estimate_norms`."""
        self.steps = 0
        """How many weights it is the average of."""
        self._share = share

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        averages: list[Tensor] = list(self.network.parameters())
        weights: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, weights, 1 / horizon(self.steps, share=self._share))

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]


def horizon(steps: int, *, share: float) -> float:
    """How many steps an average effectively spans after that many: the last weights' part in it is one over this.

    Source: Shamir and Zhang 2013, "Stochastic gradient descent for non-smooth optimization", section 4 (polynomial
    decay, with η + 1 = 1 / share).
    """
    return 1 + share * (steps - 1)


@torch.no_grad()
def estimate_norms(network: nn.Module, learner: Learner, batches: Iterable[Any], *, world: World = ALONE) -> None:
    """Give the norms' running statistics the mean over `batches` of what each of them has in `network`.

    Without it an average of weights would go with statistics of other weights, and a network after few steps with
    those that it was built with. All but the norms is in evaluation mode and paths are dropped as before the first
    step, with probability 0, so that the statistics are those of the network as it will be used.
    batches: each rank's own, as many on all of them.

    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (precise batch norm).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for index, batch in enumerate(batches):
        for norm in norms:
            norm.train()
            norm.momentum = 1 / (index + 1)  # which makes a plain mean of a moving average
        learner.loss(network, batch, progress=0.0)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        for statistics in (norm.running_mean, norm.running_var):
            assert statistics is not None
            statistics.copy_(world.sum(statistics) / world.size)


def has_norms(network: nn.Module) -> bool:
    """Whether there are statistics to estimate."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
