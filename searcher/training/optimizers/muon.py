"""SGD with orthogonal steps for convolutions: a step moves a weight equally far in all directions.

A few directions dominate a gradient, and the others learn little from it. Muon replaces the momentum, as a matrix of
filters by their inputs, by the nearest matrix whose singular values are equal. A weight keeps its norm, which the batch
norm after it makes irrelevant, so a step's length is a fraction of that norm, and no weight decay is needed. A filter
that sees one channel, as in a depthwise convolution, shares nothing with others and is a matrix of its own.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. torch's version is only for parameters of two axes, and in bfloat16; keeping
the norms comes from the same authors' training of CIFAR-10.
"""

# O output channels, I input channels, K kernel size, N matrices of R rows and C columns

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from searcher.training.optimizers.light import SGD

# Of an iteration that moves singular values of up to 1 towards 1; after this many, all but the least are 0.7 to 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-12


def is_of_convolution(parameter: nn.Parameter) -> bool:
    """Whether a parameter is a convolution's weight [O, I, K, K]; Muon is for these."""
    return parameter.ndim == 4


class Muon(SGD):
    """`torch.optim.SGD`, with orthogonal steps for convolutions, which are the first group."""

    def __init__(
        self, convolutions: list[nn.Parameter], others: list[dict[str, Any]], *, step: float, lr: float, **options: Any
    ) -> None:
        """convolutions: weights, see `is_of_convolution`; with momentum, buffers must exist before the first step.
        step: length of their steps at the rate `lr`, as a fraction of the weight's norm; proportional to the rate.
        others, options: SGD's.
        """
        super().__init__([{"params": convolutions, "step": step / lr}, *others], lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        groups = self.param_groups
        convolutions, *self.param_groups = groups
        try:
            super().step()
        finally:
            self.param_groups = groups
        share, momentum = convolutions["lr"] * convolutions["step"], convolutions["momentum"]
        for weight in convolutions["params"]:
            if (gradient := weight.grad) is None:
                continue
            if momentum > 0:  # Nesterov's
                buffer = self.state[weight]["momentum_buffer"].mul_(momentum).add_(gradient)
                gradient = gradient.add(buffer, alpha=momentum)
            moved = _moved(_matrices(weight), orthogonal(_matrices(gradient)), share=share)
            weight.copy_(moved.view_as(weight))


def _matrices(weight: Tensor) -> Tensor:
    """[O, I, K, K] -> [N, R, C]: one matrix of all filters, or one for each filter if filters see one channel."""
    return weight.flatten(1).unsqueeze(1 if weight.shape[1] == 1 else 0)


def _moved(matrices: Tensor, directions: Tensor, *, share: float) -> Tensor:
    """Moves matrices [N, R, C] against directions of the same shape by a share of their norms, which are kept."""
    norms = _norms(matrices)
    moved = matrices - directions * (share * norms / (_norms(directions) + _LEAST_NORM))
    return moved.mul_(norms / (_norms(moved) + _LEAST_NORM))


def orthogonal(matrices: Tensor) -> Tensor:
    """Returns about the nearest matrices [N, R, C] whose singular values are all equal, near 1; zeros for zeros."""
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (_norms(x) + _LEAST_NORM)
    if x.shape[1] > 1:  # a single row is orthogonal already
        for _ in range(_ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _norms(matrices: Tensor) -> Tensor:
    """[N, R, C] -> [N, 1, 1]."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
