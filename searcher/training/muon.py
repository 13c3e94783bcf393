"""SGD whose steps of matrices are orthogonal: of a weight that mixes channels all directions move alike.

A gradient is mostly made of a few directions, and the others learn little from it. Muon takes its momentum, as a matrix
of output channels by all that each sees, to the nearest one whose singular values are alike. Matrices keep their norm,
which the norms after them make meaningless, so a step's length is a part of it and needs no weight decay beside it.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. torch has it for parameters of two axes alone, and in bfloat16.
"""

# O output channels, I input channels, K kernel size

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from searcher.training.light_optimizers import SGD

# Newton's iteration towards singular values of 1, which need not arrive: all are within 0.7 to 1.2 of it then.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-12


def mixes_channels(parameter: nn.Parameter) -> bool:
    """Whether it is the weight of a convolution [O, I, K, K] that is not depthwise; Muon is for these."""
    return parameter.ndim == 4 and parameter.shape[1] > 1


class Muon(SGD):
    """`torch.optim.SGD`, but for matrices, the first group, whose steps are orthogonal."""

    def __init__(
        self, matrices: list[nn.Parameter], others: list[dict[str, Any]], *, step: float, lr: float, **options: Any
    ) -> None:
        """matrices: see `mixes_channels`; of those with momentum the buffers are there before the first step.
        step: how far each is taken, as a part of its norm, at the rate `lr`; it rises and falls with the rate.
        others, options: SGD's.
        """
        super().__init__([{"params": matrices, "step": step / lr}, *others], lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        groups = self.param_groups
        matrices, *self.param_groups = groups
        try:
            super().step()
        finally:
            self.param_groups = groups
        for matrix in matrices["params"]:
            if matrix.grad is None:
                continue
            towards = matrix.grad
            if matrices["momentum"] > 0:
                momentum = self.state[matrix]["momentum_buffer"].mul_(matrices["momentum"]).add_(matrix.grad)
                towards = matrix.grad.add(momentum, alpha=matrices["momentum"])
            _move(matrix, orthogonal(towards.flatten(1)).view_as(towards), share=matrices["lr"] * matrices["step"])


def _move(matrix: Tensor, direction: Tensor, *, share: float) -> None:
    """Take a matrix against a direction by a share of its norm, which it keeps."""
    norm = matrix.norm()
    matrix.sub_(direction * (share * norm / (direction.norm() + _LEAST_NORM)))
    matrix.mul_(norm / (matrix.norm() + _LEAST_NORM))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix [O, I] whose singular values are all alike, near 1; zeros of zeros."""
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + _LEAST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
