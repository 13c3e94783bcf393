"""Small real things for the searcher's tests."""

from __future__ import annotations

import random

import pytest
import torch

from searcher.arch.macro import MacroArchitecture, MacroSize, MacroSpace
from searcher.arch.micro import MicroArchitecture, MicroSize, MicroSpace
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification

CLASSES = ("round", "square", "other")


@pytest.fixture
def space() -> MicroSpace:
    return MicroSpace(num_nodes=3)


def random_architecture(seed: int, num_nodes: int = 3) -> MicroArchitecture:
    return MicroSpace(num_nodes).random(random.Random(seed))


def random_macro(seed: int, num_layers: int = 6) -> MacroArchitecture:
    return MacroSpace(num_layers).random(random.Random(seed))


def make_spec(
    architecture: MicroArchitecture | MacroArchitecture,
    size: MicroSize | MacroSize,
    *,
    input_shape: tuple[int, int, int] = (12, 12, 1),
) -> Spec:
    return Spec(
        space="micro" if isinstance(architecture, MicroArchitecture) else "macro",
        architecture=architecture,
        network=size,
        task=ImageClassification(dataset="shapes", input_shape=input_shape, classes=CLASSES),
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
