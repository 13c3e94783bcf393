"""Builds networks of all spaces, with their initial weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from foundation.seeds import stream_seed
from searcher.arch.space import SPACES
from searcher.arch.spec import Spec
from searcher.arch.tasks import IMAGE_CLASSIFICATION, ImageClassification, Task
from searcher.nn import recurrent
from searcher.nn.banks import Form
from searcher.nn.blocks import initialise
from searcher.nn.kernels.norm import batch_norm
from searcher.spaces import search_space


class BoundNetwork(nn.Module):
    """A network with a bound architecture, which calls do not pass.

    Images: [B, C, H, W] -> (logits [B, num_classes], auxiliary or None). Text: see `recurrent.RecurrentNetwork`.
    """

    def __init__(self, network: nn.Module, architecture: Any) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs, self.architecture, **options)


def task_options(task: Task) -> dict[str, Any]:
    """Returns the arguments of a network that depend on its task."""
    if isinstance(task, ImageClassification):
        return {"input_shape": task.input_shape, "num_classes": len(task.classes)}
    return {"vocabulary_size": task.vocabulary_size}


def build_supernet(space_name: str, space: Any, size: Any, *, seed: int, **options: Any) -> nn.Module:
    """The supernet of a space: all candidate operations, batch statistics only, channels_last on the CPU.

    Its forward takes inputs and an architecture. options: those of the task (`task_options`) and of its training:
    for images dropout_prob and auxiliary, for text see `recurrent.RecurrentNetwork`.
    """
    network = search_space(space_name).wiring.build_shared(
        space, size, **_norm_options(space_name, running_statistics=False), **options
    )
    return _initialised(network, space_name, seed=seed)


def build_network(
    spec: Spec,
    *,
    seed: int = 0,
    form: Form = "final",
    running_statistics: bool = True,
    **options: Any,
) -> BoundNetwork:
    """The fixed network of a spec, channels_last on the CPU, with fresh weights. options: as for a supernet's training.

    `form="search", running_statistics=False` gives exactly the network that the supernet computes for the architecture.
    """
    network = search_space(spec.space).wiring.build_fixed(
        spec.architecture,
        spec.network,
        form=form,
        **_norm_options(spec.space, running_statistics=running_statistics),
        **task_options(spec.task),
        **options,
    )
    return BoundNetwork(_initialised(network, spec.space, seed=seed), spec.architecture)


def _is_convolutional(space_name: str) -> bool:
    return SPACES[space_name].TASK_KIND == IMAGE_CLASSIFICATION


def _norm_options(space_name: str, *, running_statistics: bool) -> dict[str, Any]:
    return {"norm": batch_norm(running_statistics=running_statistics)} if _is_convolutional(space_name) else {}


def _initialised(network: Any, space_name: str, *, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(stream_seed(seed, "weights"))
    if _is_convolutional(space_name):
        initialise(network, generator=generator)
        return network.to(memory_format=torch.channels_last)
    recurrent.initialise(network, generator=generator)
    return network
