"""A supernet of the stages space restricted to an architecture is the fixed network with the first channels of its
weights, for every operation, width and depth."""

from __future__ import annotations

import copy
import itertools
import random
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem
from searcher.arch.stages.operations import OPERATIONS
from searcher.nn.build import BoundNetwork, build_network, build_supernet
from searcher.training.optimizers.optimizer import SgdConfig, clip_gradients, make_sgd
from tests.searcher.conftest import CLASSES, STAGES_SPACE, make_spec, random_stages


def first_channels(weight: Tensor, like: Tensor) -> Tensor:
    return weight[tuple(slice(size) for size in like.shape)]


@cache
def supernet_of(space: StagesSpace, input_shape: tuple[int, int, int]) -> nn.Module:
    """One for all tests, which leave its weights as they are; no norm's scale is zero, as some are at the start."""
    supernet = build_supernet("stages", space, StagesSize(), input_shape=input_shape, num_classes=len(CLASSES), seed=1)
    for name, parameter in supernet.named_parameters():
        if "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return supernet


def both_networks(
    architecture: StagesArchitecture,
    *,
    space: StagesSpace = STAGES_SPACE,
    input_shape: tuple[int, int, int] = (9, 10, 1),
) -> tuple[nn.Module, BoundNetwork]:
    """The supernet, without gradients, and the fixed network with the first channels of its weights."""
    supernet = supernet_of(space, input_shape)
    supernet.zero_grad(set_to_none=True)
    spec = make_spec(architecture, StagesSize(), input_shape=input_shape)
    fixed = build_network(spec, seed=2, form="search", running_statistics=False)
    shared = supernet.state_dict()
    with torch.no_grad():
        for name, parameter in fixed.network.named_parameters():
            parameter.copy_(first_channels(shared[name], parameter))
    return supernet, fixed


def architectures(operation: str) -> list[StagesArchitecture]:
    """An operation in every place, at every width, in stages of every depth."""
    space, found = STAGES_SPACE, []
    for stem, stride, widths in itertools.product(
        space.stem_channels, space.stem_strides, zip(*space.stage_channels, strict=True)
    ):
        for depths in (space.max_layers, (1, 1, 1), (1, 2, 1)):
            stages = (Stage(w, (operation,) * d) for w, d in zip(widths, depths, strict=True))
            found.append(StagesArchitecture(Stem(stem, stride), tuple(stages)))
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_computes_the_same_at_every_width_and_depth(operation: str) -> None:
    images = torch.randn(4, 1, 9, 10)
    for architecture in architectures(operation):
        supernet, fixed = both_networks(architecture)
        for training in (True, False):
            with torch.no_grad():
                expected, _ = supernet.train(training)(images, architecture)
                actual, _ = fixed.train(training)(images)
            torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_random_architectures_agree_in_outputs_and_gradients(seed: int) -> None:
    architecture = random_stages(seed)
    supernet, fixed = both_networks(architecture)
    images = torch.randn(4, 1, 9, 10)
    for logits, _ in (supernet(images, architecture), fixed(images)):
        logits.square().mean().backward()
    shared = dict(supernet.named_parameters())
    used = dict(fixed.network.named_parameters())
    for name, parameter in used.items():
        gradient = shared[name].grad
        assert gradient is not None
        torch.testing.assert_close(first_channels(gradient, parameter), parameter.grad, atol=1e-5, rtol=1e-4)
        # What the architecture leaves out of a weight that it uses has a gradient of zero.
        assert gradient.count_nonzero() <= parameter.numel()
    assert {name for name, parameter in shared.items() if parameter.grad is not None} == set(used)


def test_layers_that_add_their_input_begin_as_the_identity() -> None:
    # Without residual layers, which end in a ReLU.
    space = replace(STAGES_SPACE, operations=("fused_3x3_e2", "inverted_3x3_e4", "inverted_5x5_e6"))
    supernet = build_supernet("stages", space, StagesSize(), input_shape=(9, 10, 1), num_classes=3, seed=0)
    images, rng = torch.randn(4, 1, 9, 10), random.Random(0)
    for _ in range(5):
        architecture = space.random(rng)
        stages = tuple(Stage(stage.channels, stage.layers[:1]) for stage in architecture.stages)
        shallow = StagesArchitecture(architecture.stem, stages)
        assert torch.equal(supernet(images, architecture)[0], supernet(images, shallow)[0])


def test_widths_of_whole_vectors_agree_too() -> None:
    space = StagesSpace((16, 32), (1,), ((16, 32), (32, 48)), (2, 2))
    architecture = space.random(random.Random(0))
    supernet, fixed = both_networks(architecture, space=space, input_shape=(28, 28, 3))
    images = torch.randn(24, 3, 28, 28).to(memory_format=torch.channels_last)
    torch.testing.assert_close(fixed(images)[0], supernet(images, architecture)[0], atol=1e-5, rtol=1e-4)


def test_a_step_leaves_parameters_alone_that_it_does_not_use() -> None:
    architecture = random_stages(0)
    _, fixed = both_networks(architecture)
    supernet = copy.deepcopy(supernet_of(STAGES_SPACE, (9, 10, 1)))
    sgd = SgdConfig(learning_rate=0.1)
    optimizer = make_sgd(supernet, sgd)
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    supernet(torch.randn(4, 1, 9, 10), architecture)[0].square().mean().backward()
    clip_gradients(supernet.parameters(), sgd.clip_norm)
    optimizer.step()
    changed = {name for name, parameter in supernet.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, _ in fixed.network.named_parameters()}


def test_every_weight_of_the_supernet_belongs_to_some_architecture() -> None:
    widest = StagesArchitecture(
        Stem(max(STAGES_SPACE.stem_channels), max(STAGES_SPACE.stem_strides)),
        tuple(
            Stage(max(widths), ("residual_3x3",) * depth)
            for widths, depth in zip(STAGES_SPACE.stage_channels, STAGES_SPACE.max_layers, strict=True)
        ),
    )
    supernet, _ = both_networks(widest)
    reached: dict[str, torch.Size] = {}
    for operation in sorted(OPERATIONS, key=lambda name: OPERATIONS[name].expansion):
        stages = tuple(Stage(stage.channels, (operation,) * len(stage.layers)) for stage in widest.stages)
        _, fixed = both_networks(StagesArchitecture(widest.stem, stages))
        reached |= {name: parameter.shape for name, parameter in fixed.network.named_parameters()}
    assert {name: parameter.shape for name, parameter in supernet.named_parameters()} == reached
