"""A step of shared weights and the scoring of an architecture, over random architectures, by memory format."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from searcher.arch.macro import MacroSize, MacroSpace
from searcher.arch.micro import MicroSize, MicroSpace
from searcher.nn.build import build_supernet
from searcher.training.device import prepare
from searcher.training.image_learner import correct_answers
from searcher.training.optim import SgdConfig, clip_gradients, make_sgd
from tests.benchmarks.side_by_side import side_by_side

NUM_ARCHITECTURES = 20
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


def main() -> None:
    prepare(torch.device("cpu"))
    for title, batch_size, shape, name, space, size in SHAPES:
        plain, ours = (
            ways(batch_size, shape, name, space, size, layout)
            for layout in (torch.contiguous_format, torch.channels_last)
        )
        side_by_side(f"shared-weights step, {title}", {"contiguous": plain[0], "channels_last": ours[0]})
        side_by_side(f"one architecture scored, {title}", {"contiguous": plain[1], "channels_last": ours[1]})


def ways(
    batch_size: int, shape: tuple[int, int, int], name: str, space: Any, size: Any, layout: torch.memory_format
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step and a scoring, each going round the same random architectures."""
    rng = random.Random(0)
    order = itertools.cycle([space.random(rng) for _ in range(NUM_ARCHITECTURES)])
    supernet = build_supernet(name, space, size, input_shape=shape, num_classes=10, seed=0)
    supernet = supernet.to(memory_format=layout)  # type: ignore[call-overload]
    sgd = SgdConfig(learning_rate=0.05, final_learning_rate=0.0)
    optimizer = make_sgd(supernet, sgd)
    parameters = list(supernet.parameters())
    images = torch.randn(batch_size, shape[2], *shape[:2]).contiguous(memory_format=layout)
    labels = torch.arange(batch_size) % 10

    def step() -> None:
        supernet.train()
        optimizer.zero_grad(set_to_none=True)
        logits, _ = supernet(images, next(order))
        functional.cross_entropy(logits, labels).backward()
        clip_gradients(parameters, sgd.clip_norm)
        optimizer.step()

    def scoring() -> None:
        supernet.eval()
        architecture = next(order)
        correct_answers(lambda x: supernet(x, architecture)[0], images, labels).float().mean().item()

    return step, scoring
