"""Kendall's τ, and its p-value, against what can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from exporter.ranking import kendall_tau, permutation_p_value


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # one pair of six the wrong way round
        ([1, 2, 3, 4], [1, 1, 2, 2], 4 / math.sqrt(6 * 4)),  # two ties on one side
        ([1, 1, 2], [1, 1, 2], 1.0),
    ],
)
def test_tau_counts_pairs(first: list[float], second: list[float], tau: float) -> None:
    assert kendall_tau(first, second) == pytest.approx(tau)
    assert kendall_tau(second, first) == pytest.approx(tau)


def test_tau_of_equal_scores_is_not_defined() -> None:
    assert kendall_tau([1, 1, 1], [1, 2, 3]) is None
    assert permutation_p_value([1, 1, 1], [1, 2, 3], generator=np.random.default_rng(0)) is None


def test_the_p_value_is_the_part_of_all_orders_that_agree_as_much() -> None:
    # Of the 24 orders of four things two are wholly in order or wholly against it.
    p_value = permutation_p_value([1, 2, 3, 4], [1, 2, 3, 4], generator=np.random.default_rng(0))
    assert p_value == pytest.approx(2 / 24, abs=0.01)
    unrelated = permutation_p_value([1, 2, 3, 4], [2, 4, 1, 3], generator=np.random.default_rng(0))
    assert unrelated == 1.0  # three pairs of six: τ is zero
