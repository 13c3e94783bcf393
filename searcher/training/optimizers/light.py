"""torch's optimisers without torch.compile's machinery.

Methods of `torch.optim` are decorated for compiled code, and the first call of any of them imports `torch._dynamo`:
1.7 s of CPU time in every process that trains. Nothing here compiles a step, so these classes call the undecorated
methods. The arithmetic, the settings and the states are torch's own, to the bit.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


class _Light(Optimizer):
    """A mixin, listed before one of torch's classes, whose step it calls."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inspect.unwrap(Optimizer.add_param_group)(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = inspect.unwrap(Optimizer.state_dict)(self)
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        inspect.unwrap(Optimizer.load_state_dict)(self, state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        inspect.unwrap(Optimizer.zero_grad)(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        inspect.unwrap(super().step.__func__)(self)  # type: ignore[attr-defined]


class SGD(_Light, torch.optim.SGD):
    """`torch.optim.SGD`."""


class AdamW(_Light, torch.optim.AdamW):
    """`torch.optim.AdamW`."""


class Adam(_Light, torch.optim.Adam):
    """`torch.optim.Adam`."""
