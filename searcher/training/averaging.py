"""The running average of a network's weights, and the norms' statistics that belong to given weights.

Knows networks and a learner's training batches; other modules decide which weights are kept.
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
    """A running average of a network's weights, whose horizon is a constant share of the steps done.

    A fixed horizon is wrong for most trainings: a training shorter than it keeps its first, random weights, and a much
    longer one gains little. This horizon grows from a single step, so that the weights before the first step leave no
    trace, to `share` of all steps; see `horizon`. A share of 1 gives the plain mean.

    torch's `AveragedModel` copies all buffers, and waits for the device, at every step.
    """

    def __init__(self, network: nn.Module, *, share: float) -> None:
        """share: in (0, 1]."""
        self.network = deepcopy(network).requires_grad_(False)
        """Holds the averaged weights, and its own buffers, see `estimate_norms`."""
        self.steps = 0
        """Number of steps averaged."""
        self._share = share

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Adds the weights after a step to the average."""
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
    """Returns how many steps an average effectively spans after `steps` steps; the last weights' share is 1 over that.

    Source: Shamir and Zhang 2013, "Stochastic gradient descent for non-smooth optimization", section 4 (polynomial
    decay, with η + 1 = 1 / share).
    """
    return 1 + share * (steps - 1)


@torch.no_grad()
def estimate_norms(network: nn.Module, learner: Learner, batches: Iterable[Any], *, world: World = ALONE) -> None:
    """Sets the norms' running statistics to the mean over `batches` of their batch statistics in `network`.

    Without this, averaged weights would be used with the statistics of other weights, and a network after few steps
    with its initial statistics. Everything except the norms is in evaluation mode, and the drop-path probability is 0,
    as before the first step, so that the statistics are those of the network as it will be used.
    batches: this rank's own; the same number on all ranks.

    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (precise batch norm).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for index, batch in enumerate(batches):
        for norm in norms:
            norm.train()
            norm.momentum = 1 / (index + 1)  # turns the moving average into a plain mean
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
