"""Sharpness-aware steps: the gradient is taken where the loss near the weights is greatest, which favours flat minima.

Source: Foret et al. 2021, arXiv:2010.01412.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def climbed(parameters: Sequence[nn.Parameter], *, radius: float) -> Iterator[None]:
    """Moves the weights up their gradients by `radius`, in the global norm, and restores them to the bit on exit.

    Parameters without a gradient stay where they are.
    """
    with torch.no_grad():
        moved: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        before = [parameter.clone() for parameter in moved]
        step = radius / (torch.nn.utils.get_total_norm(gradients) + 1e-12)
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.add_(gradient * step)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)
