"""The weights' optimiser, SGD, AdamW or Muon, and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foundation.document import ConfigError
from searcher.nn.banks import used_as_one
from searcher.training.optimizers.light import SGD, AdamW
from searcher.training.optimizers.muon import Muon, is_of_convolution


@dataclass(frozen=True)
class SgdConfig:
    """Settings of SGD, AdamW or Muon, and of a cosine schedule or a decay by epochs. Any momentum is Nesterov's."""

    learning_rate: float
    """At the start of training, and of each cosine."""
    final_learning_rate: float = 0.0
    """At the end of each cosine; the lower bound of a decay."""
    warmup_epochs: float = 0.0
    """Linear rise from zero at the very beginning; at most half of the training."""
    restart_epochs: int = 0
    """Length of the first cosine, in epochs from the warm-up's end; 0 for a single one over the whole training. Paper:
    10."""
    restart_factor: int = 2
    """How much longer each further cosine is. Paper: 2."""
    decay: float = 0.0
    """Factor of the rate at every epoch from decay_start_epoch on, instead of a cosine; 0 for the cosine. Paper, for
    text: 0.96."""
    decay_start_epoch: int = 0
    """Epochs at the full rate before it decays. Paper, for text: 15."""
    momentum: float = 0.9
    """Paper: 0.9 for images, none for text."""
    weight_decay: float = 1e-4
    """PyTorch's, i.e. twice the factor of the squared norm in the loss. Paper: 1e-4 for images, 1e-7 for text."""
    decay_norms: bool = False
    """Whether the norms' scales and shifts, and biases, decay too, as in the authors' code."""
    update_unused: bool = False
    """Whether a step also updates parameters that it did not use, with a gradient of zero: decay and momentum then act
    on them, as in the authors' code, at the cost of a pass over the whole supernet."""
    clip_norm: float = 5.0
    """Bound on the global norm of the gradient; 0 for none. Paper: 5 for images, 0.25 for text. In the authors' code
    for images it has no effect."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """muon is SGD except for the weights of convolutions, see `muon.Muon`. adamw needs a learning rate near 0.001 and a
    weight decay near 0.05. Source: Loshchilov and Hutter 2019, arXiv:1711.05101."""
    muon_step: float = 0.015
    """For muon: length of a step at the full learning rate, as a fraction of the convolution weight's norm."""
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    """For adamw: two in [0, 1), used instead of momentum."""
    sharpness: float = 0.0
    """Radius, 0.05 to 0.2, of sharpness-aware steps, which take twice the time: each uses the gradient at that distance
    uphill; 0 for plain steps. Source: Foret et al. 2021, arXiv:2010.01412."""
    accumulation: int = 1
    """Parts into which a batch is split to save memory; their gradients are added up. Batch norm sees one part."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup_epochs", "weight_decay", "clip_norm", "sharpness", "muon_step"):
            if math.isinf(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be finite")
        if not 0 <= self.final_learning_rate <= self.learning_rate or self.learning_rate <= 0:
            raise ConfigError(
                f"learning_rate is {self.learning_rate} and final_learning_rate {self.final_learning_rate}; expected "
                "0 <= final_learning_rate <= learning_rate, and learning_rate above 0"
            )
        if self.restart_epochs < 0 or self.restart_factor < 1:
            raise ConfigError(
                f"restart_epochs is {self.restart_epochs} and restart_factor {self.restart_factor}; expected at least "
                "0 and at least 1"
            )
        if not 0 <= self.decay <= 1 or self.decay_start_epoch < 0:
            raise ConfigError(
                f"decay is {self.decay} and decay_start_epoch {self.decay_start_epoch}; expected 0 to 1 and at least 0"
            )
        if self.decay and self.restart_epochs:
            raise ConfigError(
                f"decay is {self.decay} and restart_epochs {self.restart_epochs}; they exclude each other, so one of "
                "them must be 0"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}; expected 0 up to, not including, 1")
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ConfigError(f"adam_betas are {list(self.adam_betas)}; expected two from 0 up to, not including, 1")
        if self.accumulation < 1:
            raise ConfigError(f"accumulation is {self.accumulation}; at least 1 is needed")
        if self.update_unused and (self.optimizer != "sgd" or self.sharpness):
            raise ConfigError("update_unused is for plain steps of SGD; with others, or sharpness, it must be false")
        for name in ("warmup_epochs", "weight_decay", "clip_norm", "sharpness", "muon_step"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")


def learning_rate(config: SgdConfig, epoch: float, *, num_epochs: int) -> float:
    """Returns the rate at a point of training; `epoch` may be fractional.

    Source: Loshchilov and Hutter 2017 (SGDR), as the paper uses it.
    """
    warmup_epochs = min(config.warmup_epochs, num_epochs / 2)
    if epoch < warmup_epochs:
        return config.learning_rate * epoch / warmup_epochs
    if config.decay:
        epochs = max(0, int(epoch) - config.decay_start_epoch + 1)
        return max(config.learning_rate * config.decay**epochs, config.final_learning_rate)
    start, length = warmup_epochs, num_epochs - warmup_epochs
    if config.restart_epochs:
        length = float(config.restart_epochs)
        while epoch >= start + length:
            start, length = start + length, length * config.restart_factor
    progress = min((epoch - start) / length, 1.0)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(network: nn.Module, config: SgdConfig) -> torch.optim.SGD | torch.optim.AdamW:
    """Returns the configured optimiser; a step leaves parameters without a gradient unchanged."""
    if config.optimizer == "adamw":
        return make_adamw(network, config)
    return make_muon(network, config) if config.optimizer == "muon" else make_sgd(network, config)


def make_adamw(network: nn.Module, config: SgdConfig) -> torch.optim.AdamW:
    """Returns AdamW over all parameters; those without a gradient are left unchanged, without decay."""
    beta1, beta2 = config.adam_betas
    return AdamW(_groups(network.parameters(), config), lr=config.learning_rate, betas=(beta1, beta2), fused=True)


def make_sgd(network: nn.Module, config: SgdConfig) -> torch.optim.SGD:
    """Returns SGD over all parameters; those without a gradient are left unchanged, without decay or momentum."""
    optimizer = SGD(_groups(network.parameters(), config), **_sgd_options(config))
    _begin_momenta(optimizer, network.parameters(), config)
    return optimizer


def make_muon(network: nn.Module, config: SgdConfig) -> Muon:
    """Returns Muon over convolutions' weights, SGD over all others; those without a gradient are left unchanged."""
    convolutions = [parameter for parameter in network.parameters() if is_of_convolution(parameter)]
    others = [parameter for parameter in network.parameters() if not is_of_convolution(parameter)]
    optimizer = Muon(convolutions, _groups(others, config), step=config.muon_step, **_sgd_options(config))
    _begin_momenta(optimizer, network.parameters(), config)
    return optimizer


def _sgd_options(config: SgdConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "momentum": config.momentum,
        "nesterov": config.momentum > 0,
        "fused": True,
    }


def _begin_momenta(optimizer: SGD, parameters: Iterable[nn.Parameter], config: SgdConfig) -> None:
    """Creates all momenta, as the fused step requires; starting at zero, they become what SGD would begin with."""
    if config.momentum > 0:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _groups(parameters: Iterable[nn.Parameter], config: SgdConfig) -> list[dict[str, Any]]:
    """Returns the parameters that decay and those that do not, in groups with their decay."""
    # Only the scales and shifts of norms, and biases, are vectors.
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1 or config.decay_norms]
    spared = [p for p in parameters if p.ndim <= 1 and not config.decay_norms]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class EachParameter:
    """The optimiser of `make_optimizer`, with clipping before each step; skips parameters without a gradient.

    A step of a micro supernet uses a fifteenth of its thousands of parameters; torch is passed only those.
    """

    def __init__(self, network: nn.Module, config: SgdConfig) -> None:
        self._units = used_as_one(network)
        self._optimizer = make_optimizer(network, config)
        self._clip_norm = config.clip_norm

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings, as torch's optimisers keep them; the learning rate may be set there."""
        return self._optimizer.param_groups

    def zero_grad(self) -> None:
        """Clears all gradients."""
        for parameter in self._used():
            parameter.grad = None

    def step(self) -> Tensor | None:
        """Takes a step with clipped gradients. Returns: as `clip_gradients`."""
        used = self._used()
        norm = clip_gradients(used, self._clip_norm)
        with _only(used, self._optimizer):
            self._optimizer.step()
        return norm

    def _used(self) -> list[nn.Parameter]:
        return [parameter for unit in self._units if unit[0].grad is not None for parameter in unit]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for `load_state_dict`; later steps change it in place."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: ValueError, RuntimeError: the state is of other parameters."""
        self._optimizer.load_state_dict(state)


@contextmanager
def _only(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restricts an optimiser to these parameters within the block."""
    groups, chosen = optimizer.param_groups, set(map(id, parameters))
    whole = [group["params"] for group in groups]
    try:
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in chosen]
        yield
    finally:
        for group, params in zip(groups, whole, strict=True):
            group["params"] = params


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor | None:
    """Scales the gradients of `parameters` in place so that their global norm is at most `max_norm`; 0 does nothing.

    Returns: the norm before, a scalar on the device; None if `max_norm` is 0.
    """
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm) if max_norm > 0 else None
