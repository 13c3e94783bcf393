"""What a step's optimiser does, from the gradients on: zeros where there are none, clipping, the step.

At the size of the preset `reference`, parameter by parameter and over whole vectors; and in retraining `narrow-small`,
with SGD and with Muon.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from exporter.retraining.presets import retrain_preset
from searcher.arch.catalog import published_spec
from searcher.nn.build import build_network, build_supernet
from searcher.presets.catalog import search_preset
from searcher.running.device import prepare
from searcher.training.optimizers.flat_sgd import FlatSgd
from searcher.training.optimizers.optimizer import EachParameter
from tests.benchmarks.side_by_side import side_by_side

CPU = torch.device("cpu")
CONFIG = search_preset("micro", "reference", image_size=32)


def main() -> None:
    prepare(CPU)
    networks = [supernet(), supernet()]
    count = sum(1 for _ in networks[0].parameters())
    side_by_side(
        f"optimiser's work of a step, preset reference, {count:,} parameters of which {len(gradients(networks[0]))} "
        "have a gradient",
        {
            "parameter by parameter": parameter_by_parameter(networks[0]),
            "over whole vectors": over_whole_vectors(networks[1]),
        },
    )
    side_by_side(
        "optimiser's work of a step of retraining, narrow-small",
        {
            "SGD": step_of_retraining("sgd"),
            "Muon": step_of_retraining("muon"),
        },
    )


def supernet() -> nn.Module:
    return build_supernet("micro", CONFIG.search_space, CONFIG.network, seed=0, input_shape=(32, 32, 3), num_classes=10)


def gradients(network: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Of a random architecture."""
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    logits, _ = network(images, CONFIG.search_space.random(random.Random(0)))
    logits.square().mean().backward()
    found = {parameter: parameter.grad for parameter in network.parameters() if parameter.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def parameter_by_parameter(network: nn.Module) -> Callable[[], object]:
    optimizer, found, parameters = EachParameter(network, CONFIG.sgd), gradients(network), list(network.parameters())
    zeros = [torch.zeros_like(parameter) for parameter in parameters]

    def step() -> None:
        optimizer.zero_grad()
        for parameter, gradient in found.items():
            parameter.grad = gradient
        for parameter, zero in zip(parameters, zeros, strict=True):
            if parameter.grad is None:
                parameter.grad = zero
        optimizer.step()

    return step


def over_whole_vectors(network: nn.Module) -> Callable[[], object]:
    optimizer, found = FlatSgd(network, CONFIG.sgd), gradients(network)

    def step() -> None:
        optimizer.zero_grad()
        for parameter, gradient in found.items():
            parameter.grad = gradient
        optimizer.step()

    return step


def step_of_retraining(optimizer_name: Literal["sgd", "muon"]) -> Callable[[], object]:
    network = build_network(published_spec("narrow-small"))
    config = retrain_preset("stages", "quick").sgd
    optimizer = EachParameter(network, replace(config, optimizer=optimizer_name))
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return optimizer.step
