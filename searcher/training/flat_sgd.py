"""SGD over whole vectors, for steps in which every parameter takes part whether a pass has used it or not.

The supernet of the preset `reference` has 5,408 parameters, of which a step uses 374. Filling in, clipping and stepping
one by one took longer than the step's kernels do on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from searcher.nn.flat import views_of
from searcher.training.light_optimizers import SGD
from searcher.training.optim import SgdConfig, clip_gradients, make_sgd


class FlatSgd:
    """Takes the steps of `make_sgd` where parameters without a gradient have one of zero.

    Weights, gradients and momenta lie one behind the other in one vector each, of the parameters that decay and of
    those that are spared; the network's parameters become views of them, with their shapes and strides. States have the
    form of `make_sgd`'s, with a momentum for each parameter, and both read each other's.
    """

    def __init__(self, network: nn.Module, config: SgdConfig) -> None:
        self._parameters = list(network.parameters())
        # Never takes a step: it groups the parameters, and its state is how checkpoints name ours.
        self._each = make_sgd(network, config)
        self._clip_norm = config.clip_norm
        self._vectors = [_lay_flat(group["params"]) for group in self._each.param_groups]
        self._gradients: dict[nn.Parameter, Tensor] = {}
        for group, vector in zip(self._each.param_groups, self._vectors, strict=True):
            vector.grad = torch.zeros_like(vector)
            self._gradients |= zip(group["params"], views_of(vector.grad, group["params"]), strict=True)
        self._used = self._parameters  # in the last step; elsewhere there is no gradient, and the vectors' is zero
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
        for parameter in self._used:
            parameter.grad = None

    def step(self) -> Tensor | None:
        """Follow the parameters' gradients, clipped. Returns: as `clip_gradients`."""
        torch._foreach_zero_([self._gradients[parameter] for parameter in self._used])
        # The one look at all parameters: with cold caches it takes more than a millisecond for 5,408.
        self._used = [parameter for parameter in self._parameters if parameter.grad is not None]
        # Clipped here and not as vectors, which are zero all but for these: two passes over all weights less.
        norm = clip_gradients(self._used, self._clip_norm)
        found = [parameter.grad for parameter in self._used if parameter.grad is not None]
        torch._foreach_copy_([self._gradients[parameter] for parameter in self._used], found)
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


@torch.no_grad()
def _lay_flat(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A vector of all parameters, which become views of it, wherever they lay before."""
    vector = nn.Parameter(parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters)))
    for parameter, view in zip(parameters, views_of(vector.detach(), parameters), strict=True):
        view.copy_(parameter)
        parameter.data = view
    return vector
