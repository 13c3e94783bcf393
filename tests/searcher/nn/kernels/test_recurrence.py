"""The fast walk through time computes what the paper's equations say, forwards and backwards, and lets go of memory."""

# T time steps, B batch, H hidden size

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from searcher.nn.kernels.recurrence import ACTIVATION_FUNCTIONS, CellPlan, StateNorm, run, step

ACTIVATIONS = tuple(ACTIVATION_FUNCTIONS)
HIDDEN = 3


class Case(NamedTuple):
    """What `run` takes, in float64."""

    plan: CellPlan
    projected: Tensor
    state: Tensor
    weights: list[Tensor]
    mask: Tensor | None
    norm: StateNorm | None

    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        return [self.projected, self.state, *self.weights, *(self.norm or ())]

    def run(self, dtype: torch.dtype | None = None) -> Tensor:
        return run(self.plan, self.projected, self.state, self.weights, mask=self.mask, norm=self.norm, dtype=dtype)


def random_plan(num_nodes: int, rng: random.Random, activations: Sequence[str] = ACTIVATIONS) -> CellPlan:
    previous = (-1, *(rng.randrange(number) for number in range(1, num_nodes)))
    loose = tuple(number for number in range(num_nodes) if number not in previous)
    return CellPlan(previous, tuple(rng.choice(activations) for _ in previous), loose)


def make_case(
    plan: CellPlan, *, steps: int = 4, batch: int = 3, masked: bool = False, normed: bool = False, seed: int = 0
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    case = Case(
        plan,
        values(steps, batch, 2 * HIDDEN),
        values(batch, HIDDEN),
        # Small, so that no state grows beyond what the equations' own exponentials can hold.
        [0.4 * values(HIDDEN, 2 * HIDDEN) for _ in plan.previous],
        2 * (values(batch, HIDDEN) > 0).double() if masked else None,
        StateNorm(values(HIDDEN), values(HIDDEN)) if normed else None,
    )
    for leaf in case.leaves():
        leaf.requires_grad_()
    return case


def by_the_equations(case: Case) -> Tensor:
    """Node by node and step by step: c = σ(h Wᶜ), node = c ⊗ act(h Wʰ) + (1 - c) ⊗ h; the mean is the new state."""
    state, states = case.state, []
    for inputs in case.projected:
        nodes: list[Tensor] = []
        for number, weight in enumerate(case.weights):
            previous = case.plan.previous[number]
            read = state if previous == -1 else nodes[previous]
            masked = read if case.mask is None else read * case.mask
            gate = masked @ weight[:, :HIDDEN]
            candidate = masked @ weight[:, HIDDEN:]
            if number == 0:
                gate, candidate = gate + inputs[:, :HIDDEN], candidate + inputs[:, HIDDEN:]
            carry = 1 / (1 + torch.exp(-gate))
            activated = {
                "tanh": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
                "relu": lambda x: torch.where(x > 0, x, 0 * x),
                "identity": lambda x: x,
                "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
            }[case.plan.activations[number]](candidate)
            nodes.append(carry * activated + (1 - carry) * read)
        state = sum(nodes[number] for number in case.plan.averaged) / len(case.plan.averaged)  # type: ignore[assignment]
        if case.norm is not None:
            centred = state - state.mean(0)
            state = centred / (centred.square().mean(0) + 1e-5).sqrt() * case.norm.scale + case.norm.shift
        states.append(state)
    return torch.stack(states)


def gradients(case: Case, outputs: Tensor) -> tuple[Tensor, ...]:
    """Of a sum with different factors for every output."""
    factors = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.autograd.grad((outputs.double() * factors).sum(), case.leaves())


def assert_equals_the_equations(case: Case) -> None:
    found, expected = case.run(), by_the_equations(case)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(case, found), gradients(case, expected), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_every_activation_follows_the_equations(activation: str, masked: bool, normed: bool) -> None:
    plan = CellPlan((-1, 0, 0, 1, 3), (activation,) * 5, (2, 4))
    assert_equals_the_equations(make_case(plan, masked=masked, normed=normed))


@given(
    num_nodes=st.integers(1, 9),
    steps=st.integers(1, 6),
    batch=st.integers(1, 5),
    masked=st.booleans(),
    normed=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60)
def test_random_cells_follow_the_equations(
    num_nodes: int, steps: int, batch: int, masked: bool, normed: bool, seed: int
) -> None:
    plan = random_plan(num_nodes, random.Random(seed))
    # Batch norm of one state divides by no more than the root of its epsilon: what is left there is rounding.
    normed = normed and batch > 1
    assert_equals_the_equations(make_case(plan, steps=steps, batch=batch, masked=masked, normed=normed, seed=seed))


def test_all_nodes_may_be_averaged_those_that_are_read_too() -> None:
    plan = replace(random_plan(5, random.Random(3)), averaged=(1, 2, 3, 4))
    assert_equals_the_equations(make_case(plan))


def test_one_node_one_step_and_one_text_is_a_case_like_any_other() -> None:
    assert_equals_the_equations(make_case(CellPlan((-1,), ("tanh",), (0,)), steps=1, batch=1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_gradients_are_those_of_finite_differences(masked: bool, normed: bool) -> None:
    # Without relu, whose kink finite differences may straddle.
    plan = random_plan(4, random.Random(5), ("tanh", "identity", "sigmoid"))
    case = make_case(plan, steps=3, masked=masked, normed=normed)
    num_nodes = len(plan.previous)

    def function(projected: Tensor, state: Tensor, *rest: Tensor) -> Tensor:
        norm = StateNorm(*rest[num_nodes:]) if normed else None
        return run(plan, projected, state, rest[:num_nodes], mask=case.mask, norm=norm)

    assert torch.autograd.gradcheck(function, case.leaves())


@pytest.mark.parametrize("normed", [False, True])
def test_many_steps_are_one_step_repeated(normed: bool) -> None:
    case = make_case(random_plan(6, random.Random(2)), steps=5, normed=normed)
    state, states = case.state, []
    for projected in case.projected:
        state = step(case.plan, projected, state, case.weights, case.norm)
        states.append(state)
    torch.testing.assert_close(case.run(), torch.stack(states))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_without_a_gradient_the_same_states_come_out(masked: bool, normed: bool) -> None:
    case = make_case(random_plan(6, random.Random(4)), masked=masked, normed=normed)
    with torch.no_grad():
        without = case.run()
    assert torch.equal(without, case.run().detach())
    assert not without.requires_grad


def test_windows_one_after_the_other_are_one_long_window() -> None:
    case = make_case(random_plan(5, random.Random(6)), steps=6)
    first = case._replace(projected=case.projected[:2])
    second = case._replace(projected=case.projected[2:], state=first.run()[-1])
    torch.testing.assert_close(torch.cat([first.run(), second.run()]), case.run())


def test_a_mask_of_ones_changes_nothing_and_a_mask_of_zeros_leaves_the_inputs_alone() -> None:
    case = make_case(random_plan(5, random.Random(7)))
    ones = case._replace(mask=torch.ones(3, HIDDEN, dtype=torch.float64))
    torch.testing.assert_close(ones.run(), case.run())
    zeros = case._replace(mask=torch.zeros(3, HIDDEN, dtype=torch.float64))
    other_weights = zeros._replace(weights=[2 * weight for weight in case.weights])
    assert torch.equal(zeros.run(), other_weights.run())


@pytest.mark.parametrize("masked", [False, True])
def test_products_in_bfloat16_stay_close_and_the_state_stays_in_float32(masked: bool) -> None:
    case = make_case(random_plan(8, random.Random(8)), steps=10, batch=8, masked=masked)
    case = case._replace(
        projected=case.projected.detach().float().requires_grad_(),
        state=case.state.detach().float().requires_grad_(),
        weights=[0.2 * w.detach().float() for w in case.weights],
        mask=None if case.mask is None else case.mask.float(),
    )
    for weight in case.weights:
        weight.requires_grad_()
    exact, rounded = case.run(), case.run(torch.bfloat16)
    assert rounded.dtype == torch.float32
    # bfloat16 has 8 bits of mantissa: 0.4 %, of products that ten steps add up.
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0.03)
    for found, expected in zip(gradients(case, rounded), gradients(case, exact), strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.03 * expected.norm()
    with torch.no_grad():
        assert torch.equal(case.run(torch.bfloat16), rounded.detach())


def test_a_step_lets_go_of_its_memory_without_the_cycle_collector() -> None:
    case = make_case(random_plan(3, random.Random(0)))
    gc.disable()
    try:
        outputs = case.run()
        walk = weakref.ref(outputs.grad_fn.walk)  # type: ignore[union-attr]
        outputs.sum().backward()
        assert walk() is not None
        del outputs
        assert walk() is None
    finally:
        gc.enable()
