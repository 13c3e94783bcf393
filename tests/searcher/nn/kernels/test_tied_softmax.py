"""The tied softmax gives torch's cross entropy and its gradients, however the positions are cut into pieces."""

# N positions, H hidden size, V vocabulary

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from searcher.nn.kernels import tied_softmax
from searcher.nn.kernels.tied_softmax import negative_log_likelihood


class Case(NamedTuple):
    outputs: Tensor
    weight: Tensor
    targets: Tensor


def make_case(num_positions: int = 10, *, hidden: int = 4, vocabulary: int = 7, dtype: torch.dtype) -> Case:
    generator = torch.Generator().manual_seed(0)
    return Case(
        torch.randn(num_positions, hidden, generator=generator, dtype=dtype, requires_grad=True),
        torch.randn(vocabulary, hidden, generator=generator, dtype=dtype, requires_grad=True),
        torch.randint(vocabulary, (num_positions,), generator=generator),
    )


def gradients(case: Case, nll: Tensor) -> tuple[Tensor, ...]:
    """Of a weighted sum, where every position has a factor of its own, zero and negative ones among them."""
    return torch.autograd.grad((nll * torch.linspace(-1, 2, len(nll), dtype=nll.dtype)).sum(), case[:2])


@pytest.mark.parametrize("rows_of_a_piece", [1, 3, 10, 1000])
def test_values_and_gradients_are_those_of_the_cross_entropy(
    rows_of_a_piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(dtype=torch.float64)
    monkeypatch.setattr(tied_softmax, "_PIECE_ELEMENTS", rows_of_a_piece * len(case.weight))
    expected = functional.cross_entropy(case.outputs @ case.weight.t(), case.targets, reduction="none")
    found = negative_log_likelihood(*case)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(case, found), gradients(case, expected), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(negative_log_likelihood(*case), expected.detach())


def test_a_vocabulary_larger_than_a_piece_goes_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(3, vocabulary=50, dtype=torch.float64)
    monkeypatch.setattr(tied_softmax, "_PIECE_ELEMENTS", 20)
    expected = functional.cross_entropy(case.outputs @ case.weight.t(), case.targets, reduction="none")
    torch.testing.assert_close(negative_log_likelihood(*case), expected)


def test_gradients_are_those_of_finite_differences() -> None:
    case = make_case(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *given: negative_log_likelihood(*given, case.targets), case[:2])


@pytest.mark.parametrize("which", [0, 1])
def test_one_side_alone_may_want_a_gradient(which: int) -> None:
    case = make_case(dtype=torch.float64)
    frozen = case._replace(**{case._fields[1 - which]: case[1 - which].detach()})
    found = torch.autograd.grad(negative_log_likelihood(*frozen).sum(), frozen[which])
    expected = torch.autograd.grad(negative_log_likelihood(*case).sum(), case[which])
    torch.testing.assert_close(found, expected)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    outputs = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    nll = negative_log_likelihood(outputs, weight, torch.tensor([0, 0]))
    assert nll.tolist() == [0.0, 1e4]
    nll.sum().backward()
    assert torch.isfinite(outputs.grad).all()  # type: ignore[arg-type]


def test_products_in_bfloat16_stay_close() -> None:
    case = make_case(200, hidden=32, vocabulary=50, dtype=torch.float32)
    exact, rounded = negative_log_likelihood(*case), negative_log_likelihood(*case, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    # Logits of up to 30 in 8 bits of mantissa.
    torch.testing.assert_close(rounded, exact, atol=0.15, rtol=0.02)
    for found, expected in zip(gradients(case, rounded), gradients(case, exact), strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()
    with torch.no_grad():
        assert torch.equal(negative_log_likelihood(*case, dtype=torch.bfloat16), rounded.detach())
