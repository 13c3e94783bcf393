"""Networks of all spaces, with their first weights: the one place that knows which wiring belongs to which space."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datasets.seeds import stream_seed
from searcher.arch.spec import Spec
from searcher.nn import micro
from searcher.nn.blocks import batch_norm, initialise

# A space's module offers `build_shared(space, size, **options)` and `build_fixed(architecture, size, **options)`.
_WIRINGS: dict[str, ModuleType] = {"micro": micro}


class BoundNetwork(nn.Module):
    """A network with its architecture bound: images [B, C, H, W] -> (logits [B, num_classes], auxiliary or None)."""

    def __init__(self, network: nn.Module, architecture: Any) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture

    def forward(self, images: Tensor, *, drop_path_prob: float = 0.0) -> tuple[Tensor, Tensor | None]:
        return self.network(images, self.architecture, drop_path_prob=drop_path_prob)


def build_supernet(
    space_name: str,
    space: Any,
    size: Any,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    seed: int,
    dropout_prob: float = 0.0,
    auxiliary: bool = False,
) -> nn.Module:
    """The supernet of a space: all candidate operations, batch statistics only, channels_last on the CPU.

    Its forward takes images and an architecture.
    """
    network = _WIRINGS[space_name].build_shared(
        space,
        size,
        input_shape=input_shape,
        num_classes=num_classes,
        norm=batch_norm(running_statistics=False),
        dropout_prob=dropout_prob,
        auxiliary=auxiliary,
    )
    return _initialised(network, seed=seed)


def build_network(
    spec: Spec,
    *,
    seed: int = 0,
    form: Literal["search", "final"] = "final",
    running_statistics: bool = True,
    dropout_prob: float = 0.0,
    auxiliary: bool = False,
) -> BoundNetwork:
    """The fixed network of a spec, channels_last on the CPU, with fresh weights.

    `form="search", running_statistics=False` gives the very network that the supernet computes for the architecture.
    """
    network = _WIRINGS[spec.space].build_fixed(
        spec.architecture,
        spec.network,
        form=form,
        input_shape=spec.task.input_shape,
        num_classes=len(spec.task.classes),
        norm=batch_norm(running_statistics=running_statistics),
        dropout_prob=dropout_prob,
        auxiliary=auxiliary,
    )
    return BoundNetwork(_initialised(network, seed=seed), spec.architecture)


def _initialised(network: nn.Module, *, seed: int) -> nn.Module:
    initialise(network, generator=torch.Generator().manual_seed(stream_seed(seed, "weights")))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
