"""Steps of shared weights, the scoring of architectures, and retraining, by memory format and precision.

Over random architectures of two seeds, each with weights of its own.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from searcher.arch.catalog import published_spec
from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.nn.build import build_network, build_supernet
from searcher.running.device import Precision, computing, prepare, products_precision
from searcher.training.image_learner import ImageTraining, classification_loss, correct_answers
from searcher.training.optimizers.optimizer import SgdConfig, clip_gradients, make_sgd
from tests.benchmarks.side_by_side import side_by_side

NUM_ARCHITECTURES = 20
SEEDS = (0, 1)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Way:
    layout: torch.memory_format
    precision: Precision


WAYS = {
    "contiguous, float32": Way(torch.contiguous_format, "float32"),
    "channels_last, float32": Way(torch.channels_last, "float32"),
    "channels_last, as trained": Way(torch.channels_last, products_precision(CPU, "auto")),
}
MICRO, MACRO = MicroSpace(), MacroSpace()
MACRO_36, MACRO_16 = (MacroSize(channels=channels, skip_merge="sum") for channels in (36, 16))
SHAPES = (
    ("micro, batch 64, 3×32×32, 20 channels, 6 + 2 cells", 64, (32, 32, 3), "micro", MICRO, MicroSize(8, 20)),
    ("micro, batch 128, 1×28×28, 8 channels, 6 + 2 cells", 128, (28, 28, 1), "micro", MICRO, MicroSize(8, 8)),
    (
        "micro, batch 64, 1×28×28, 16 channels, 3 + 2 cells (quick)",
        64,
        (28, 28, 1),
        "micro",
        MICRO,
        MicroSize(5, 16, 2),
    ),
    ("macro, batch 64, 3×32×32, 36 channels, 12 layers", 64, (32, 32, 3), "macro", MACRO, MACRO_36),
    ("macro, batch 128, 1×28×28, 16 channels, 12 layers", 128, (28, 28, 1), "macro", MACRO, MACRO_16),
)


SGD = SgdConfig(learning_rate=0.05, final_learning_rate=0.0)

Work = Callable[[], object]


def main() -> None:
    prepare(CPU)
    for title, batch_size, shape, name, space, size in SHAPES:
        works = {label: works_of(batch_size, shape, name, space, size, way) for label, way in WAYS.items()}
        side_by_side(f"shared-weights step, {title}", {label: step for label, (step, _) in works.items()})
        side_by_side(f"one architecture scored, {title}", {label: scoring for label, (_, scoring) in works.items()})
    side_by_side(
        "retraining step, published micro cells, batch 64, 3×32×32, 16 channels, 6 + 2 cells, auxiliary head",
        {label: retraining(way) for label, way in WAYS.items()},
    )


def works_of(
    batch_size: int, shape: tuple[int, int, int], name: str, space: Any, size: Any, way: Way
) -> tuple[Work, Work]:
    """A training step and a scoring, each going round the random architectures of all seeds in turn."""
    images, labels = batch(batch_size, shape, way)
    steps, scorings = [], []
    for seed in SEEDS:
        rng = random.Random(seed)
        order = itertools.cycle([space.random(rng) for _ in range(NUM_ARCHITECTURES)])
        supernet = build_supernet(name, space, size, input_shape=shape, num_classes=10, seed=seed)
        supernet = supernet.to(memory_format=way.layout)  # type: ignore[call-overload]
        steps.append(training_step(supernet, lambda x, n=supernet, o=order: n(x, next(o)), images, labels, way))
        scorings.append(scoring(supernet, order, images, labels, way))
    return in_turn(steps), in_turn(scorings)


def scoring(supernet: nn.Module, order: Iterator[Any], images: Tensor, labels: Tensor, way: Way) -> Work:
    def score() -> None:
        supernet.eval()
        architecture = next(order)
        answers = correct_answers(lambda x: supernet(x, architecture)[0], images, labels, precision=way.precision)
        answers.float().mean().item()

    return score


def retraining(way: Way) -> Work:
    spec = published_spec("enas-micro-published")
    spec = replace(spec, network=MicroSize(cells=8, channels=16))
    network = build_network(spec, auxiliary=True).to(memory_format=way.layout)  # type: ignore[call-overload]
    return training_step(network, network, *batch(64, (32, 32, 3), way), way)


def training_step(
    network: nn.Module,
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    images: Tensor,
    labels: Tensor,
    way: Way,
) -> Work:
    optimizer = make_sgd(network, SGD)
    parameters = list(network.parameters())
    training = ImageTraining(auxiliary_weight=0.4)

    def step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with computing(CPU, way.precision):
            answers = forward(images)
        classification_loss(*answers, labels, training=training).backward()
        clip_gradients(parameters, SGD.clip_norm)
        optimizer.step()

    return step


def batch(batch_size: int, shape: tuple[int, int, int], way: Way) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch_size, shape[2], *shape[:2]).contiguous(memory_format=way.layout)
    return images, torch.arange(batch_size) % 10


def in_turn(works: list[Work]) -> Work:
    order = itertools.cycle(works)
    return lambda: next(order)()
