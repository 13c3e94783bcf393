"""Networks from specs: the one place that knows which wiring belongs to which space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from datasets.seeds import stream_seed
from searcher.arch.micro import CELL_KINDS, MicroArchitecture, MicroSize, MicroSpace, loose_ends
from searcher.arch.spec import Spec
from searcher.nn.banks import FixedOps, SharedOps
from searcher.nn.blocks import batch_norm, initialise
from searcher.nn.micro import Form, MicroNetwork


class BoundNetwork(nn.Module):
    """A network with its architecture bound: images [B, C, H, W] -> (logits [B, num_classes], auxiliary or None)."""

    def __init__(self, network: nn.Module, architecture: Any) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture

    def forward(self, images: Tensor, *, drop_path_prob: float = 0.0) -> tuple[Tensor, Tensor | None]:
        return self.network(images, self.architecture, drop_path_prob=drop_path_prob)


def build_supernet(
    space: MicroSpace,
    size: MicroSize,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    seed: int,
    dropout_prob: float = 0.0,
    auxiliary: bool = False,
) -> MicroNetwork:
    """The supernet of a space: all candidate operations, batch statistics only, channels_last on the CPU."""
    network = MicroNetwork(
        size,
        SharedOps(),
        num_nodes=space.num_nodes,
        leaves=dict.fromkeys(CELL_KINDS, 1),
        input_shape=input_shape,
        num_classes=num_classes,
        norm=batch_norm(running_statistics=False),
        form="search",
        dropout_prob=dropout_prob,
        auxiliary=auxiliary,
    )
    return _initialised(network, seed=seed)


def build_network(
    spec: Spec,
    *,
    seed: int = 0,
    form: Form = "final",
    running_statistics: bool = True,
    dropout_prob: float = 0.0,
    auxiliary: bool = False,
) -> BoundNetwork:
    """The fixed network of a spec, channels_last on the CPU, with fresh weights.

    `form="search", running_statistics=False` gives the very network that the supernet computes for the architecture.
    """
    architecture: MicroArchitecture = spec.architecture
    height, width, in_channels = spec.task.input_shape
    network = MicroNetwork(
        spec.network,
        FixedOps(architecture.used()),
        num_nodes=len(architecture.normal),
        leaves={kind: len(loose_ends(architecture.cell(kind))) for kind in CELL_KINDS},
        input_shape=(height, width, in_channels),
        num_classes=len(spec.task.classes),
        norm=batch_norm(running_statistics=running_statistics),
        form=form,
        dropout_prob=dropout_prob,
        auxiliary=auxiliary,
    )
    return BoundNetwork(_initialised(network, seed=seed), architecture)


def _initialised(network: MicroNetwork, *, seed: int) -> MicroNetwork:
    initialise(network, generator=torch.Generator().manual_seed(stream_seed(seed, "weights")))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
