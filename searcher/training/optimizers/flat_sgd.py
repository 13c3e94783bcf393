"""SGD over whole vectors, for steps in which every parameter takes part whether a pass has used it or not.

The supernet of the preset `reference` has 5,408 parameters, of which a step uses 374. Filling in, clipping and stepping
one by one took longer than the step's kernels do on a GPU.
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
    """Takes the steps of `make_sgd` where parameters without a gradient have one of zero.

    Weights, gradients and momenta lie one behind the other in one vector each, of the parameters that decay and of
    those that are spared; the network's parameters become views of them, with their shapes and strides. States have the
    form of `make_sgd`'s, with a momentum for each parameter, and both read each other's.
    """

    def __init__(self, network: nn.Module, config: SgdConfig) -> None:
        # Never takes a step: it groups the parameters, and its state is how checkpoints name ours.
        self._each = make_sgd(network, config)
        self._clip_norm = config.clip_norm
        self._vectors = [_lay_flat(group["params"]) for group in self._each.param_groups]
        gradients: dict[nn.Parameter, Tensor] = {}
        for group, vector in zip(self._each.param_groups, self._vectors, strict=True):
            vector.grad = torch.zeros_like(vector)
            gradients |= zip(group["params"], views_of(vector.grad, group["params"]), strict=True)
        self._units = [[(parameter, gradients[parameter]) for parameter in unit] for unit in used_as_one(network)]
        # In the last step; elsewhere there is no gradient, and the vectors' is zero.
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
        """Forget the gradients that the last step followed. Those are all there are, once a step is taken."""
        for parameter, _ in self._used:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> Tensor | None:
        """Follow the parameters' gradients, clipped. Returns: as `clip_gradients`."""
        torch._foreach_zero_([gradient for _, gradient in self._used])
        # The one look at all that may be used: with cold caches one at each of 5,408 parameters took milliseconds.
        self._used = [pair for unit in self._units if unit[0][0].grad is not None for pair in unit]
        found = [parameter.grad for parameter, _ in self._used if parameter.grad is not None]
        # Clipped here and not as vectors, which are zero all but for these: two passes over all weights less.
        norm = _clip(found, self._clip_norm) if found and self._clip_norm > 0 else None
        torch._foreach_copy_([gradient for _, gradient in self._used], found)
        for whole, each in zip(self._whole.param_groups, self._each.param_groups, strict=True):
            whole.update({key: value for key, value in each.items() if key != "params"})
        self._whole.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on, which later steps change."""
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
    """What `clip_gradients` does to parameters with these gradients, to the bit, of one type and on one device.

    torch's own looks at each of them several times to find that out, which takes longer than the work.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def _lay_flat(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A vector of all parameters, which become views of it, wherever they lay before."""
    vector = nn.Parameter(parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters)))
    for parameter, view in zip(parameters, views_of(vector.detach(), parameters), strict=True):
        view.copy_(parameter)
        parameter.data = view
    return vector
