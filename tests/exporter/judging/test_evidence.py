"""Intervals of accuracies against simulated networks whose accuracies are known."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from exporter.judging.evidence import Replicates, accuracy, difference, of_draws, of_networks, spread
from foundation.statistics import Estimate

NUM_TRIALS = 500
IMAGES = 300
# Standard deviations, on the probit scale, of an image's difficulty, of a seed's luck, and of what a network makes of
# an image.
IMAGE, SEED, TASTE = 1.6, 0.12, 0.4


def simulated(rng: np.random.Generator, skills: list[float], *, seeds: int, luck: float = SEED) -> list[np.ndarray]:
    """Answers [seeds, images] of networks of these skills, on the same images."""
    difficulty = rng.normal(0, IMAGE, IMAGES)
    tables = []
    for skill in skills:
        taste = rng.normal(0, TASTE, IMAGES)
        seed = rng.normal(0, luck, (seeds, 1))
        tables.append((skill + seed + difficulty + taste + rng.normal(0, 1, (seeds, IMAGES)) > 0).astype(float))
    return tables


def true_accuracy(skill: float, *, luck: float = SEED, draw: float = 0.0) -> float:
    return NormalDist().cdf(skill / math.sqrt(1 + IMAGE**2 + TASTE**2 + luck**2 + draw**2))


def holds(estimate: Estimate, value: float) -> bool:
    assert estimate.interval is not None
    return estimate.interval.low <= value <= estimate.interval.high


@pytest.mark.parametrize(("seeds", "luck"), [(3, SEED), (2, SEED)])
def test_intervals_of_accuracies_and_differences_hold_the_truth_19_times_in_20(seeds: int, luck: float) -> None:
    rng = np.random.default_rng(0)
    skills = [2.5, 2.4, 2.3, 2.4]  # the found one, and references
    truth = [true_accuracy(skill, luck=luck) for skill in skills]
    of_one = of_two = 0
    for _ in range(NUM_TRIALS):
        networks = of_networks(simulated(rng, skills, seeds=seeds, luck=luck))
        of_one += holds(accuracy(networks[0]), truth[0])
        of_two += holds(difference(networks[0], networks[2]), truth[0] - truth[2])
    for hits in (of_one, of_two):
        assert 0.93 <= hits / NUM_TRIALS <= 0.97


def test_the_interval_against_a_random_pool_holds_for_other_networks_of_its_kind() -> None:
    rng = np.random.default_rng(0)
    drawn = 0.15
    truth = true_accuracy(2.5) - true_accuracy(2.3, draw=drawn)
    hits = 0
    for _ in range(NUM_TRIALS):
        skills = [2.5, *rng.normal(2.3, drawn, 8)]
        found, *rivals = of_networks(simulated(rng, skills, seeds=2))
        hits += holds(difference(found, of_draws(rivals)), truth)
    assert 0.93 <= hits / NUM_TRIALS <= 0.97


def test_an_interval_without_seeds_or_images_would_miss() -> None:
    """What both parts are for: taking the images for all there is, the truth is missed far more often."""
    rng = np.random.default_rng(0)
    truth = true_accuracy(2.5, luck=0.3)
    hits = 0
    for _ in range(NUM_TRIALS):
        (table,) = simulated(rng, [2.5], seeds=3, luck=0.3)
        error = table.std() / math.sqrt(table.size)
        hits += abs(table.mean() - truth) <= 1.96 * error
    assert hits / NUM_TRIALS < 0.85


def test_equals_have_nothing_to_rank_and_a_real_spread_is_seen() -> None:
    rng = np.random.default_rng(0)
    equals = [spread(of_networks(simulated(rng, [2.4] * 8, seeds=2))) for _ in range(200)]
    false_alarms = sum(found is not None and not found.is_noise for found in equals)
    assert 2 <= false_alarms <= 20  # 5 % of them are 10
    different = spread(of_networks(simulated(rng, [1.6, 1.9, 2.2, 2.5, 2.8], seeds=2)))
    assert different is not None
    assert not different.is_noise
    truth = np.std([true_accuracy(skill) for skill in (1.6, 1.9, 2.2, 2.5, 2.8)], ddof=1)
    assert different.signal == pytest.approx(truth, rel=0.4)


def test_two_networks_are_no_pool() -> None:
    assert spread(of_networks([np.ones((2, 9))] * 2)) is None


def test_equal_answers_leave_no_doubt_and_one_seed_still_has_an_interval() -> None:
    same = Replicates(np.ones((2, 10)))
    assert difference(same, same) == Estimate(0.0, difference(same, same).interval)
    assert holds(difference(same, same), 0.0)
    one = accuracy(Replicates(np.array([[1.0, 0.0] * 50])))
    assert one.value == 0.5
    assert one.interval is not None
    assert one.interval.high - one.interval.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 99), rel=0.02)
