"""Small real things for the searcher's tests."""

from __future__ import annotations

import random

import pytest
import torch

from searcher.arch.micro import MicroArchitecture, MicroSize, MicroSpace
from searcher.arch.spec import Spec, Task

CLASSES = ("round", "square", "other")


@pytest.fixture
def space() -> MicroSpace:
    return MicroSpace(num_nodes=3)


def random_architecture(seed: int, num_nodes: int = 3) -> MicroArchitecture:
    return MicroSpace(num_nodes).random(random.Random(seed))


def make_spec(
    architecture: MicroArchitecture, size: MicroSize, *, input_shape: tuple[int, int, int] = (12, 12, 1)
) -> Spec:
    return Spec(
        space="micro",
        architecture=architecture,
        network=size,
        task=Task("shapes", "image-classification", input_shape, CLASSES),
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
