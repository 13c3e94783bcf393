"""The cost of a network by arithmetic: equal to what torch counts on the network itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from searcher.arch.operations import CELL_COSTS, LAYER_COSTS
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroArchitecture, MicroSize, MicroSpace, Node
from searcher.arch.spaces.recurrent import OUTPUTS, RecurrentSize, RecurrentSpace
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.spec import Spec
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem
from searcher.arch.stages.operations import OPERATIONS
from searcher.arch.tasks import ImageClassification, LanguageModelling
from searcher.nn.build import build_network
from searcher.nn.complexity import Cost, complexity_of
from searcher.report.complexity import describe_complexity
from tests.searcher.conftest import make_spec, random_architecture

_COUNTED = {torch.ops.aten.convolution.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default}


class Counter(TorchDispatchMode):
    """Counts what convolutions and matrix products compute, whatever layers they stand in."""

    multiply_adds = activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.multiply_adds += out.numel() * args[1][0].numel()  # weight: [out, in/groups, k, k]
            self.activations += out.numel()
        elif func in _COUNTED:
            self.multiply_adds += out.numel() * args[-1].shape[0]  # second factor: [in, out]
            self.activations += out.numel()
        return out


def counted_by_torch(spec: Spec) -> Cost:
    network = build_network(spec).eval()
    with torch.no_grad(), Counter() as counter:
        if isinstance(spec.task, ImageClassification):
            height, width, channels = spec.task.input_shape
            network(torch.zeros(1, channels, height, width))
        else:
            state = torch.zeros(1, spec.network.hidden_size)
            network.network.step(torch.zeros(1, dtype=torch.int64), state, spec.architecture)
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, counter.multiply_adds, counter.activations)


@st.composite
def pictures(draw: st.DrawFn, *, stem_stride: int) -> ImageClassification:
    """Of all shapes, odd and oblong ones among them."""
    sides = st.integers(stem_stride, 40)
    shape = (draw(sides), draw(sides), draw(st.sampled_from([1, 3])))
    return ImageClassification(dataset="shapes", input_shape=shape, classes=("round", "square", "other"))


@st.composite
def micro_specs(draw: st.DrawFn) -> Spec:
    architecture = MicroSpace(draw(st.integers(1, 5))).random(draw(st.randoms(use_true_random=False)))
    size = MicroSize(draw(st.integers(3, 8)), draw(st.integers(2, 7)), draw(st.sampled_from([1, 2, 4, 8])))
    return Spec("micro", architecture, size, draw(pictures(stem_stride=size.stem_stride)))


@st.composite
def macro_specs(draw: st.DrawFn) -> Spec:
    architecture = MacroSpace(draw(st.integers(3, 12))).random(draw(st.randoms(use_true_random=False)))
    size = MacroSize(
        draw(st.integers(2, 7)),
        draw(st.sampled_from([1, 2, 4])),
        draw(st.sampled_from(["sum", "concat", "residual"])),
        draw(st.booleans()),
    )
    return Spec("macro", architecture, size, draw(pictures(stem_stride=size.stem_stride)))


@st.composite
def stages_specs(draw: st.DrawFn) -> Spec:
    widths = st.integers(1, 9)
    stage = st.builds(Stage, widths, st.lists(st.sampled_from(list(OPERATIONS)), min_size=1).map(tuple))
    architecture = StagesArchitecture(
        Stem(draw(widths), draw(st.sampled_from([1, 2, 4, 8]))),
        tuple(draw(st.lists(stage, min_size=1, max_size=4))),
    )
    return Spec("stages", architecture, StagesSize(), draw(pictures(stem_stride=architecture.stem.stride)))


@st.composite
def recurrent_specs(draw: st.DrawFn) -> Spec:
    space = RecurrentSpace(draw(st.integers(2, 12)), output=draw(st.sampled_from(OUTPUTS)))
    architecture = space.random(draw(st.randoms(use_true_random=False)))
    task = LanguageModelling(dataset="words", tokens="word", vocabulary_size=draw(st.integers(2, 100)))
    return Spec("recurrent", architecture, RecurrentSize(draw(st.integers(1, 40))), task)


@settings(max_examples=160)
@given(st.one_of(micro_specs(), macro_specs(), stages_specs(), recurrent_specs()))
def test_a_network_costs_what_torch_counts(spec: Spec) -> None:
    assert complexity_of(spec).total == counted_by_torch(spec)


@pytest.mark.parametrize("operation", CELL_COSTS)
def test_every_micro_operation_costs_what_torch_counts(operation: str) -> None:
    cell = (Node((0, 1), (operation, operation)), Node((2, 0), (operation, operation)))
    spec = make_spec(MicroArchitecture(cell, cell), MicroSize(4, 6), input_shape=(11, 14, 3))
    assert complexity_of(spec).total == counted_by_torch(spec)


@pytest.mark.parametrize("operation", LAYER_COSTS)
def test_every_macro_operation_costs_what_torch_counts(operation: str) -> None:
    layers = (Layer(operation), Layer(operation), Layer(operation, (0, 1)))
    spec = make_spec(MacroArchitecture(layers), MacroSize(6, double_channels=True), input_shape=(11, 14, 3))
    assert complexity_of(spec).total == counted_by_torch(spec)


def test_a_total_is_the_sum_of_the_parts() -> None:
    complexity = complexity_of(make_spec(random_architecture(0), MicroSize(5, 4)))
    assert complexity.total.multiply_adds == sum(part.cost.multiply_adds for part in complexity.parts)
    document = complexity.to_document()
    assert document["total"]["parameters"] == sum(part["parameters"] for part in document["parts"])


def test_parts_are_told_with_their_shapes_and_costs() -> None:
    cell = (Node((0, 1), ("identity", "identity")),)
    spec = make_spec(MicroArchitecture(cell, cell), MicroSize(3, 2), input_shape=(8, 9, 1))
    assert describe_complexity(complexity_of(spec)).splitlines() == [
        "cost                 output  parameters  multiply-adds  activations",
        "  stem               8×9×6           66          3,888          432",
        "  cell 0, reduction  4×5×4          136          5,184        1,008",
        "  cell 1, reduction  2×3×8          352          3,424          544",
        "  cell 2, normal     2×3×8          128            544           88",
        "  classifier         3               24             24            3",
        "  total                             706         13,064        2,075",
    ]
