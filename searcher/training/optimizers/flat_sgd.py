"""SGD on flat vectors, for steps that update every parameter, whether a pass has used it or not.

The supernet of the preset `reference` has 5,408 parameters, of which a step uses 374. Filling in zero gradients,
clipping and stepping one by one took longer than the step's kernels on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from searcher.nn.banks import used_as_one
from searcher.nn.flat import views_of
from searcher.training.optimizers.light import SGD
from searcher.training.optimizers.optimizer import SgdConfig, make_sgd


class FlatSgd:
    """Takes the same steps as `make_sgd`, with a zero gradient for parameters that have none.

    Weights, gradients and momenta lie in one vector each, separately for parameters with and without weight decay. The
    network's parameters become views of these vectors, with their shapes and strides. States have the form of
    `make_sgd`'s, with a momentum for each parameter, so that each can load the other's.
    """

    def __init__(self, network: nn.Module, config: SgdConfig) -> None:
        # Never takes a step: it groups the parameters, and its state has the form that checkpoints use.
        self._each = make_sgd(network, config)
        self._clip_norm = config.clip_norm
        self._vectors = [_lay_flat(group["params"]) for group in self._each.param_groups]
        gradients: dict[nn.Parameter, Tensor] = {}
        for group, vector in zip(self._each.param_groups, self._vectors, strict=True):
            vector.grad = torch.zeros_like(vector)
            gradients |= zip(group["params"], views_of(vector.grad, group["params"]), strict=True)
        self._units = [[(parameter, gradients[parameter]) for parameter in unit] for unit in used_as_one(network)]
        # Used in the last step. All others have no gradient, and the vectors' gradients are zero there.
        self._used = [pair for unit in self._units for pair in unit]
        groups = [
            {**group, "params": [vector]} for group, vector in zip(self._each.param_groups, self._vectors, strict=True)
        ]
        self._whole = SGD(groups, **self._each.defaults)
        self._momenta: dict[nn.Parameter, Tensor] = {}
        if config.momentum > 0:
            for group, vector in zip(self._each.param_groups, self._vectors, strict=True):
                momentum = self._whole.state[vector]["momentum_buffer"] = torch.zeros_like(vector)
                self._momenta |= zip(group["params"], views_of(momentum, group["params"]), strict=True)
        self._show_momenta()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings, as torch's optimisers keep them; the learning rate may be set there."""
        return self._each.param_groups

    def zero_grad(self) -> None:
        """Clears the gradients that the last step used; after a step there are no others."""
        for parameter, _ in self._used:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> Tensor | None:
        """Takes a step with clipped gradients. Returns: as `clip_gradients`."""
        torch._foreach_zero_([gradient for _, gradient in self._used])
        # Checks one parameter of each unit: with cold caches, checking all 5,408 parameters took milliseconds.
        self._used = [pair for unit in self._units if unit[0][0].grad is not None for pair in unit]
        found = [parameter.grad for parameter, _ in self._used if parameter.grad is not None]
        # Clipped here and not in the vectors, which are zero elsewhere: saves two passes over all weights.
        norm = _clip(found, self._clip_norm) if found and self._clip_norm > 0 else None
        torch._foreach_copy_([gradient for _, gradient in self._used], found)
        for whole, each in zip(self._whole.param_groups, self._each.param_groups, strict=True):
            whole.update({key: value for key, value in each.items() if key != "params"})
        self._whole.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for `load_state_dict`; later steps change it in place."""
        return self._each.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: ValueError, RuntimeError: the state is of other parameters."""
        self._each.load_state_dict(state)
        for parameter, momentum in self._momenta.items():
            momentum.copy_(self._each.state[parameter]["momentum_buffer"])
        self._show_momenta()

    def _show_momenta(self) -> None:
        for parameter, momentum in self._momenta.items():
            self._each.state[parameter]["momentum_buffer"] = momentum


def _clip(gradients: list[Tensor], max_norm: float) -> Tensor:
    """Clips gradients of one type on one device, with the result of `clip_gradients` to the bit. Returns: as there.

    torch's own function checks type and device of each gradient several times, which takes longer than the clipping.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def _lay_flat(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Returns a vector with the values of all parameters, which become views of it."""
    vector = nn.Parameter(parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters)))
    for parameter, view in zip(parameters, views_of(vector.detach(), parameters), strict=True):
        view.copy_(parameter)
        parameter.data = view
    return vector
