"""Intervals of accuracies against simulated networks whose accuracies are known."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from exporter.judging.evidence import Replicates, accuracy, difference, of_draws, of_networks, spread
from foundation.statistics import Estimate, Interval, share

NUM_TRIALS = 1000
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


@pytest.mark.parametrize(
    ("seeds", "luck", "count"), [(3, SEED, 4), (2, SEED, 4), (2, 0.35, 4), (3, 0.35, 2), (2, 0.35, 2)]
)
def test_intervals_of_accuracies_and_differences_hold_the_truth_19_times_in_20(
    seeds: int, luck: float, count: int
) -> None:
    rng = np.random.default_rng(0)
    skills = [2.5, 2.3, 2.4, 2.4][:count]  # the found one, and references
    truth = [true_accuracy(skill, luck=luck) for skill in skills]
    of_one = of_two = 0
    for _ in range(NUM_TRIALS):
        networks = of_networks(simulated(rng, skills, seeds=seeds, luck=luck))
        of_one += holds(accuracy(networks[0]), truth[0])
        of_two += holds(difference(networks[0], networks[1]), truth[0] - truth[1])
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


def interval_of(estimate: Estimate) -> Interval:
    assert estimate.interval is not None
    return estimate.interval


@pytest.mark.parametrize("images", [1, 2, 18, 2000])
@pytest.mark.parametrize("seeds", [1, 2])
def test_networks_that_are_always_right_are_not_known_to_stay_so(images: int, seeds: int) -> None:
    right, also = of_networks([np.ones((seeds, images))] * 2)
    assert accuracy(right).value == 1
    of_one, of_two = interval_of(accuracy(right)), interval_of(difference(right, also))
    assert 0 <= of_one.low < 1 == of_one.high
    assert -1 <= of_two.low < 0 < of_two.high <= 1
    if (images, seeds) == (18, 1):  # as the same share has it elsewhere, but for Student's t
        assert of_one.low == pytest.approx(interval_of(share(18, 18)).low, abs=0.03)


def test_intervals_of_few_images_stay_within_what_is_possible() -> None:
    lucky, unlucky, torn = np.array([[1, 1], [1, 0]]), np.zeros((2, 2)), np.array([[1, 0], [0, 1]])
    networks = of_networks([lucky.astype(float), unlucky, torn.astype(float)])
    for one in networks:
        interval = interval_of(accuracy(one))
        assert 0 <= interval.low <= accuracy(one).value <= interval.high <= 1
        assert interval.high - interval.low > 0.3
        for other in networks:
            interval = interval_of(difference(one, other))
            assert -1 <= interval.low < interval.high <= 1


def test_intervals_of_few_images_hold_the_truth_too() -> None:
    rng = np.random.default_rng(0)
    of_one = of_two = 0
    for _ in range(NUM_TRIALS):
        answers = (rng.random((2, 1, 20)) < np.array([0.97, 0.9])[:, None, None]).astype(float)
        first, second = of_networks(list(answers))
        of_one += holds(accuracy(first), 0.97)
        of_two += holds(difference(first, second), 0.07)
    assert min(of_one, of_two) / NUM_TRIALS >= 0.93


def test_one_seed_still_has_an_interval() -> None:
    one = accuracy(Replicates(np.array([[1.0, 0.0] * 50])))
    assert one.value == 0.5
    assert one.interval is not None
    assert one.interval.high - one.interval.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 99), rel=0.02)
