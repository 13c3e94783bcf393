"""Small real things for the searcher's tests."""

from __future__ import annotations

import random

import pytest
import torch

from searcher.arch.spaces.macro import MacroArchitecture, MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroArchitecture, MicroSize, MicroSpace
from searcher.arch.spaces.recurrent import RecurrentArchitecture, RecurrentSize, RecurrentSpace
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.spec import Spec
from searcher.arch.stages.architecture import StagesArchitecture
from searcher.arch.stages.operations import OPERATIONS
from searcher.arch.tasks import ImageClassification, LanguageModelling

CLASSES = ("round", "square", "other")
VOCABULARY_SIZE = 11


@pytest.fixture
def space() -> MicroSpace:
    return MicroSpace(num_nodes=3)


def random_architecture(seed: int, num_nodes: int = 3) -> MicroArchitecture:
    return MicroSpace(num_nodes).random(random.Random(seed))


def random_macro(seed: int, num_layers: int = 6) -> MacroArchitecture:
    return MacroSpace(num_layers).random(random.Random(seed))


def random_recurrent(seed: int, num_nodes: int = 5) -> RecurrentArchitecture:
    return RecurrentSpace(num_nodes).random(random.Random(seed))


def make_text_spec(architecture: RecurrentArchitecture, hidden_size: int = 8) -> Spec:
    return Spec(
        space="recurrent",
        architecture=architecture,
        network=RecurrentSize(hidden_size),
        task=LanguageModelling(dataset="letters", tokens="word", vocabulary_size=VOCABULARY_SIZE),
    )


STAGES_SPACE = StagesSpace(
    stem_channels=(3, 4),
    stem_strides=(1, 2),
    stage_channels=((4, 6), (4, 8), (5, 8)),
    max_layers=(2, 3, 2),
    operations=tuple(OPERATIONS),
)


def random_stages(seed: int) -> StagesArchitecture:
    return STAGES_SPACE.random(random.Random(seed))


_SPACES: dict[type, str] = {MicroArchitecture: "micro", MacroArchitecture: "macro", StagesArchitecture: "stages"}


def make_spec(
    architecture: MicroArchitecture | MacroArchitecture | StagesArchitecture,
    size: MicroSize | MacroSize | StagesSize,
    *,
    input_shape: tuple[int, int, int] = (12, 12, 1),
) -> Spec:
    return Spec(
        space=_SPACES[type(architecture)],
        architecture=architecture,
        network=size,
        task=ImageClassification(dataset="shapes", input_shape=input_shape, classes=CLASSES),
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
