"""The first steps of training a supernet of each space, as they were when they were known to be right.

What changes the arithmetic of a step, meant or not, changes these losses.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.nn.build import build_supernet
from searcher.training.optimizers.optimizer import SgdConfig, clip_gradients, make_sgd

VOCABULARY_SIZE, WINDOW, BATCH_SIZE = 23, 6, 16
# Sums in another order, as on another CPU, move them by less.
TOLERANCE = 2e-3


def images_of(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    images = torch.randn(BATCH_SIZE, 3, 16, 16, generator=generator)
    return images, torch.randint(5, (BATCH_SIZE,), generator=generator)


def trace(name: str, space: Any, size: Any, *, learning_rate: float, steps: int = 5) -> list[float]:
    """The losses of the first steps, each with an architecture and a minibatch of its own."""
    is_text = name == "recurrent"
    options = {"vocabulary_size": VOCABULARY_SIZE} if is_text else {"input_shape": (16, 16, 3), "num_classes": 5}
    supernet = build_supernet(name, space, size, seed=0, **options)
    sgd = SgdConfig(learning_rate=learning_rate)
    optimizer, parameters = make_sgd(supernet, sgd), list(supernet.parameters())
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        if is_text:
            tokens = torch.randint(VOCABULARY_SIZE, (WINDOW + 1, BATCH_SIZE), generator=generator)
            loss = supernet(tokens[:-1], tokens[1:], None, space.random(rng)).nll.mean()
        else:
            images, labels = images_of(generator)
            loss = functional.cross_entropy(supernet(images, space.random(rng))[0], labels)
        loss.backward()
        clip_gradients(parameters, sgd.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "space", "size", "learning_rate", "expected"),
    [
        ("micro", MicroSpace(), MicroSize(cells=5, channels=20), 0.01, [1.5400, 1.7785, 2.0898, 1.6724, 1.7630]),
        (
            "macro",
            MacroSpace(6),
            MacroSize(channels=12, skip_merge="sum"),
            0.01,
            [1.4701, 1.6701, 1.6822, 1.7589, 1.6092],
        ),
        (
            "stages",
            StagesSpace((8, 16), (1, 2), ((8, 16), (16, 24), (24, 40)), (2, 2, 3)),
            StagesSize(),
            0.01,
            [1.9212, 1.6114, 1.8155, 1.6780, 1.4576],
        ),
        ("recurrent", RecurrentSpace(), RecurrentSize(16), 10.0, [3.1349, 3.1416, 3.1263, 3.1157, 3.1768]),
    ],
)
def test_a_supernets_first_losses_are_those_on_record(
    name: str, space: Any, size: Any, learning_rate: float, expected: list[float]
) -> None:
    assert trace(name, space, size, learning_rate=learning_rate) == pytest.approx(expected, rel=TOLERANCE)
