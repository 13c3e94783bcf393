"""A supernet restricted to an architecture is the fixed network with the same weights, for every operation."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import nn

from searcher.arch.operations import CELL_COSTS, LAYER_COSTS
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize, MacroSpace, skip_candidates
from searcher.arch.spaces.micro import CELL_KINDS, CellKind, MicroArchitecture, MicroSize, MicroSpace, Node
from searcher.arch.spaces.recurrent import ACTIVATIONS, RecurrentArchitecture, RecurrentSize, RecurrentSpace
from searcher.arch.spaces.recurrent import Node as RecurrentNode
from searcher.nn.build import BoundNetwork, build_network, build_supernet
from searcher.nn.recurrent import Dropout
from tests.searcher.conftest import (
    CLASSES,
    VOCABULARY_SIZE,
    make_spec,
    make_text_spec,
    random_architecture,
    random_macro,
)

SIZE = MicroSize(cells=5, channels=4)
PLAIN = Node((0, 1), ("identity", "identity"))
MACRO_SIZES = (
    MacroSize(channels=4, skip_merge="sum"),
    MacroSize(channels=4, skip_merge="concat"),
    MacroSize(channels=4, skip_merge="residual"),
    MacroSize(channels=4, skip_merge="concat", double_channels=True, stem_stride=2),
)
RECURRENT_SPACES = (
    RecurrentSpace(5),
    RecurrentSpace(5, weights="per_activation"),
    RecurrentSpace(5, output="all", weights="per_activation", first_activation="tanh"),
)


def both_networks(
    architecture: MicroArchitecture | MacroArchitecture,
    size: MicroSize | MacroSize = SIZE,
    *,
    input_shape: tuple[int, int, int] = (12, 12, 1),
    auxiliary: bool = False,
) -> tuple[nn.Module, BoundNetwork]:
    """The supernet, and the fixed network with the weights of the same names."""
    name, space = (
        ("micro", MicroSpace(len(architecture.normal), tuple(CELL_COSTS)))
        if isinstance(architecture, MicroArchitecture)
        else ("macro", MacroSpace(len(architecture.layers), operations=tuple(LAYER_COSTS)))
    )
    supernet = build_supernet(
        name,
        space,
        size,
        input_shape=input_shape,
        num_classes=len(CLASSES),
        seed=1,
        auxiliary=auxiliary,
    )
    fixed = build_network(
        make_spec(architecture, size, input_shape=input_shape),
        seed=2,
        form="search",
        running_statistics=False,
        auxiliary=auxiliary,
    )
    missing, _ = fixed.network.load_state_dict(supernet.state_dict(), strict=False)
    assert missing == []
    return supernet, fixed


@pytest.mark.parametrize("operation", CELL_COSTS)
@pytest.mark.parametrize("kind", CELL_KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_every_operation_computes_the_same_in_supernet_and_fixed_network(
    operation: str, kind: CellKind, training: bool
) -> None:
    changed = (Node((0, 1), (operation, operation)), Node((2, 0), (operation, "identity")))
    plain = (PLAIN, PLAIN)
    architecture = MicroArchitecture(*(changed if k == kind else plain for k in CELL_KINDS))
    supernet, fixed = both_networks(architecture)
    images = torch.randn(4, 1, 12, 12)
    expected, _ = supernet.train(training)(images, architecture)
    actual, _ = fixed.train(training)(images)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("seed", range(6))
def test_random_architectures_agree_in_outputs_and_gradients(seed: int) -> None:
    architecture = random_architecture(seed)
    supernet, fixed = both_networks(architecture, auxiliary=True)
    images = torch.randn(4, 1, 12, 12)
    for network, outputs in ((supernet, supernet(images, architecture)), (fixed, fixed(images))):
        logits, auxiliary_logits = outputs
        assert auxiliary_logits is not None
        (logits.square().mean() + auxiliary_logits.square().mean()).backward()
        assert network.training
    shared = dict(supernet.named_parameters())
    for name, parameter in fixed.network.named_parameters():
        assert torch.equal(parameter.grad, shared[name].grad), name


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(16, 16, 3), (28, 28, 1), (30, 30, 1), (33, 33, 3), (17, 31, 3)]
)
def test_odd_and_even_sizes_agree(height: int, width: int, channels: int) -> None:
    architecture = random_architecture(3)
    supernet, fixed = both_networks(architecture, input_shape=(height, width, channels))
    images = torch.randn(2, channels, height, width)
    assert torch.equal(fixed(images)[0], supernet(images, architecture)[0])


@pytest.mark.parametrize("seed", range(4))
def test_exactly_the_parameters_an_architecture_uses_get_a_gradient(seed: int) -> None:
    architecture = random_architecture(seed)
    supernet, fixed = both_networks(architecture)
    logits, _ = supernet(torch.randn(4, 1, 12, 12), architecture)
    logits.square().mean().backward()
    touched = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    assert touched == {name for name, _ in fixed.network.named_parameters()}


def test_unused_inputs_of_a_reduction_cell_are_halved_and_used() -> None:
    alone = tuple(Node((0, 0), ("max_pool_3x3", "identity")) for _ in range(2))
    architecture = MicroArchitecture(normal=alone, reduction=alone)
    supernet, fixed = both_networks(architecture)
    names = [name for name, _ in fixed.network.named_parameters() if "leaf_reductions.1" in name]
    assert names
    images = torch.randn(2, 1, 12, 12)
    assert torch.equal(fixed(images)[0], supernet(images, architecture)[0])


def test_every_candidate_of_the_supernet_belongs_to_some_architecture() -> None:
    reached: set[str] = set()
    for first, second in itertools.product(CELL_COSTS, repeat=2):
        for source in itertools.product(range(2), repeat=2):
            cell = (Node(source, (first, second)),)
            architecture = MicroArchitecture(cell, cell)
            fixed = build_network(make_spec(architecture, SIZE), form="search", running_statistics=False)
            reached |= {name for name, _ in fixed.network.named_parameters()}
    supernet = build_supernet(
        "micro", MicroSpace(1, tuple(CELL_COSTS)), SIZE, input_shape=(12, 12, 1), num_classes=len(CLASSES), seed=0
    )
    assert {name for name, _ in supernet.named_parameters()} == reached


@pytest.mark.parametrize("operation", LAYER_COSTS)
@pytest.mark.parametrize("size", MACRO_SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_every_macro_operation_computes_the_same_in_supernet_and_fixed_network(
    operation: str, size: MacroSize, training: bool
) -> None:
    plain = "conv_3x3"
    architecture = MacroArchitecture(
        (Layer(operation), Layer(plain), Layer(operation, (0, 1)), Layer(plain, (2,)), Layer(operation))
    )
    supernet, fixed = both_networks(architecture, size)
    images = torch.randn(4, 1, 12, 12)
    expected, _ = supernet.train(training)(images, architecture)
    actual, _ = fixed.train(training)(images)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", MACRO_SIZES)
def test_random_macro_architectures_agree_in_outputs_and_gradients(seed: int, size: MacroSize) -> None:
    architecture = random_macro(seed, num_layers=7)
    supernet, fixed = both_networks(architecture, size)
    images = torch.randn(4, 1, 12, 12)
    for logits, _ in (supernet(images, architecture), fixed(images)):
        logits.square().mean().backward()
    shared = dict(supernet.named_parameters())
    used = dict(fixed.network.named_parameters())
    for name, parameter in used.items():
        assert torch.equal(parameter.grad, shared[name].grad), name
    assert {name for name, parameter in shared.items() if parameter.grad is not None} == set(used)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(16, 16, 3), (28, 28, 1), (30, 30, 1), (33, 33, 3), (17, 31, 3)]
)
def test_odd_and_even_sizes_agree_in_macro_networks(height: int, width: int, channels: int) -> None:
    architecture = random_macro(3)
    supernet, fixed = both_networks(architecture, MACRO_SIZES[0], input_shape=(height, width, channels))
    images = torch.randn(2, channels, height, width)
    assert torch.equal(fixed(images)[0], supernet(images, architecture)[0])


@pytest.mark.parametrize("size", MACRO_SIZES)
def test_every_candidate_of_the_macro_supernet_belongs_to_some_architecture(size: MacroSize) -> None:
    reached: set[str] = set()
    for operation in LAYER_COSTS:
        layers = tuple(Layer(operation, tuple(skip_candidates(index))) for index in range(1, 5))
        fixed = build_network(make_spec(MacroArchitecture(layers), size), form="search", running_statistics=False)
        reached |= {name for name, _ in fixed.network.named_parameters()}
    supernet = build_supernet(
        "macro",
        MacroSpace(4, operations=tuple(LAYER_COSTS)),
        size,
        input_shape=(12, 12, 1),
        num_classes=len(CLASSES),
        seed=0,
    )
    assert {name for name, _ in supernet.named_parameters()} == reached


def both_recurrent_networks(
    architecture: RecurrentArchitecture, space: RecurrentSpace, *, batch_norm: bool = False
) -> tuple[nn.Module, BoundNetwork]:
    """The supernet, and the fixed network with the weights of the same names; both drop out alike."""
    options = {"batch_norm": batch_norm, "weight_range": 1.0, "dropout": Dropout(0.1, 0.2, 0.3, 0.4)}
    supernet = build_supernet("recurrent", space, RecurrentSize(8), seed=1, vocabulary_size=VOCABULARY_SIZE, **options)
    fixed = build_network(make_text_spec(architecture), seed=2, form="search", weights=space.weights, **options)
    missing, _ = fixed.network.load_state_dict(supernet.state_dict(), strict=False)
    assert missing == []
    return supernet, fixed


def windows() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets of 6 time steps and 4 texts."""
    tokens, targets = torch.randint(VOCABULARY_SIZE, (2, 6, 4), generator=torch.Generator().manual_seed(0))
    return tokens, targets


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("space", RECURRENT_SPACES[:2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_activation_computes_the_same_in_supernet_and_fixed_network(
    activation: str, space: RecurrentSpace, training: bool, batch_norm: bool
) -> None:
    nodes = (RecurrentNode(0, activation), RecurrentNode(1, activation), RecurrentNode(1, "tanh"))
    architecture = RecurrentArchitecture((*nodes, RecurrentNode(2, activation), RecurrentNode(4, "relu")))
    supernet, fixed = both_recurrent_networks(architecture, space, batch_norm=batch_norm)
    torch.manual_seed(0)
    expected = supernet.train(training)(*windows(), None, architecture)
    torch.manual_seed(0)
    actual = fixed.train(training)(*windows(), None)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", RECURRENT_SPACES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_random_cells_agree_in_gradients_and_exactly_what_they_use_gets_one(
    seed: int, space: RecurrentSpace, batch_norm: bool
) -> None:
    architecture = space.random(random.Random(seed))
    supernet, fixed = both_recurrent_networks(architecture, space, batch_norm=batch_norm)
    torch.manual_seed(0)
    supernet(*windows(), None, architecture).nll.mean().backward()
    torch.manual_seed(0)
    fixed(*windows(), None).nll.mean().backward()
    shared = dict(supernet.named_parameters())
    used = dict(fixed.network.named_parameters())
    for name, parameter in used.items():
        assert torch.equal(parameter.grad, shared[name].grad), name
    assert {name for name, parameter in shared.items() if parameter.grad is not None} == set(used)


@pytest.mark.parametrize(
    "space",
    [
        RecurrentSpace(3),
        RecurrentSpace(3, weights="per_activation"),
        RecurrentSpace(3, weights="per_activation", first_activation="tanh"),
    ],
)
def test_every_matrix_of_the_recurrent_supernet_belongs_to_some_cell(space: RecurrentSpace) -> None:
    reached: set[str] = set()
    first = [] if space.first_activation else [range(4)]
    for row in itertools.product(*first, range(1), range(4), range(2), range(4)):
        fixed = build_network(make_text_spec(space.from_tokens(row)), form="search", weights=space.weights)
        reached |= {name for name, _ in fixed.network.named_parameters()}
    supernet = build_supernet("recurrent", space, RecurrentSize(8), seed=0, vocabulary_size=VOCABULARY_SIZE)
    assert {name for name, _ in supernet.named_parameters()} == reached
