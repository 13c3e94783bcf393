"""Kendall's τ, its error, its p-value, and regret, against what can be worked out by hand or simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from exporter.judging.agreement import (
    agreement,
    kendall_tau,
    permutation_p_value,
    seed_standard_error,
    seed_tau,
    tells_apart,
)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # one pair of six the wrong way round
        ([1, 2, 3, 4], [1, 1, 2, 2], 4 / math.sqrt(6 * 4)),  # two ties on one side
        ([1, 1, 2], [1, 1, 2], 1.0),
        ([1, 2, -math.inf], [3, 4, -math.inf], 1.0),
    ],
)
def test_tau_counts_pairs(first: list[float], second: list[float], tau: float) -> None:
    assert kendall_tau(first, second) == pytest.approx(tau)
    assert kendall_tau(second, first) == pytest.approx(tau)


def test_tau_of_equal_scores_is_not_defined() -> None:
    assert kendall_tau([1, 1, 1], [1, 2, 3]) is None
    found = agreement([1, 1, 1], np.array([[1.0, 2.0, 3.0]]), top=1, generator=generator())
    assert (found.tau, found.standard_error, found.p_value) == (None, None, None)


def test_the_share_is_of_what_two_seeds_agree() -> None:
    trained = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 6.0, 5.0]])
    found = agreement(range(6), trained, top=1, generator=generator())
    assert found.share == pytest.approx((1 + 13 / 15) / 2 / (13 / 15))
    assert agreement(range(6), trained[:1], top=1, generator=generator()).share is None
    by_chance = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 1.0, 4.0, 2.0]])
    assert seed_tau(by_chance) == 0
    assert agreement(range(4), by_chance, top=1, generator=generator()).share is None


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_seeds_of_noise_seldom_tell_a_few_networks_apart(count: int, seeds: int) -> None:
    noise = generator().normal(0, 1, (500, seeds, count))
    assert np.mean([tells_apart(trained) for trained in noise]) <= 0.06
    assert tells_apart(np.tile(np.arange(count), (seeds, 1))) or (count, seeds) == (3, 2)


def test_the_p_value_is_the_part_of_all_orders_that_agree_as_much() -> None:
    # Of the 24 orders of four things two are wholly in order or wholly against it.
    p_value = permutation_p_value([1, 2, 3, 4], np.array([[1, 2, 3, 4]]), generator=generator())
    assert p_value == pytest.approx(2 / 24, abs=0.01)
    unrelated = permutation_p_value([1, 2, 3, 4], np.array([[2, 4, 1, 3]]), generator=generator())
    assert unrelated == 1.0  # three pairs of six: τ is zero


def test_tau_is_with_one_training_and_the_ceiling_is_that_of_another_training() -> None:
    trained = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]])
    found = agreement([1, 2, 3, 4], trained, top=1, generator=generator())
    assert found.tau == pytest.approx((1 + 4 / 6) / 2)
    assert seed_tau(trained) == pytest.approx(4 / 6)
    assert seed_tau(trained[:1]) is None


def test_a_predictor_as_good_as_a_training_reaches_the_ceiling() -> None:
    rng = generator()
    truth = rng.normal(0, 1, 80)
    trained = truth + rng.normal(0, 1, (2, 80))
    found = agreement((truth + rng.normal(0, 1, 80)).tolist(), trained, top=3, generator=rng)
    ceiling = seed_tau(trained)
    assert found.tau is not None
    assert ceiling is not None
    assert found.tau == pytest.approx(ceiling, abs=0.15)
    assert seed_standard_error(trained) == pytest.approx(0.07, abs=0.03)


def test_the_standard_error_is_how_far_other_pools_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.judging.agreement._NUM_PERMUTATIONS", 1)
    rng = generator()
    taus, errors = [], []
    for _ in range(40):
        truth = rng.normal(0, 1, 16)
        found = agreement(truth + rng.normal(0, 1, 16), truth[None], top=3, generator=np.random.default_rng(0))
        taus.append(found.tau)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(taus), rel=0.4)  # type: ignore[arg-type]


def test_the_upper_half_and_the_regret_are_of_the_better_ones() -> None:
    trained = np.array([[0.1, 0.2, 0.3, 0.7, 0.8, 0.9]])
    # Knows good from bad, but not which of the good is best.
    found = agreement([1, 2, 3, 6, 5, 4], trained, top=1, generator=generator())
    assert found.upper_half_tau == -1.0
    assert found.regret == pytest.approx(0.2)
    assert agreement([1, 2, 3, 6, 5, 4], trained, top=3, generator=generator()).regret == 0.0
    # What diverges is as bad as the worst that does not.
    trained = np.array([[-math.inf, 0.2, 0.9]])
    assert agreement([3, 2, 1], trained, top=1, generator=generator()).regret == pytest.approx(0.7)
