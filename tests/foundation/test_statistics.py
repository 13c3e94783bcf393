import math
from collections.abc import Iterator

import numpy as np
import pytest

from foundation import statistics
from foundation.statistics import Estimate, Interval


def spread_out(ordered: np.ndarray) -> np.ndarray:
    """The samples in an order in which every stretch of ten holds one of every tenth."""
    return ordered.reshape(10, -1).T.ravel()


@pytest.mark.parametrize(("q", "fewest"), [(0.90, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)])
def test_a_percentile_takes_as_many_samples_as_mlperf_asks(q: float, fewest: int) -> None:
    assert statistics.fewest_samples(q) == fewest
    assert statistics.supports(fewest, q)
    assert not statistics.supports(fewest - 1, q)


def test_a_quantile_is_a_sample_that_was_seen() -> None:
    samples = np.arange(1.0, 101.0)
    np.random.default_rng(0).shuffle(samples)
    # ceil(q * 100)-th smallest; 0.9 * 100 and 0.99 * 100 are not whole numbers in floating point.
    assert [statistics.quantile(samples, q).value for q in (0.005, 0.9, 0.99, 0.991)] == [1, 90, 99, 100]


@pytest.mark.parametrize("count", [1, 2, 9, 100, 662, 10_000])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_a_quantile_is_numpys_inverted_distribution_function(count: int, q: float) -> None:
    samples = np.random.default_rng(count).lognormal(size=count)
    assert statistics.quantile(samples, q).value == np.quantile(samples, q, method="inverted_cdf")


def test_the_median_of_an_even_count_is_the_middle_of_two() -> None:
    assert statistics.median(np.array([4.0, 1.0, 3.0, 2.0])).value == 2.5


def test_percentiles_without_support_are_absent() -> None:
    stated = statistics.percentiles(np.arange(130.0))
    assert {q for q, estimate in stated.items() if estimate is not None} == {0.90, 0.95}


def test_the_interval_of_a_median_has_the_ranks_of_the_textbook() -> None:
    # Known for 95 %: ranks 2 and 9 of 10 samples, 40 and 61 of 100; none below 6.
    assert statistics.median(np.arange(1.0, 11.0)).interval == Interval(2, 9)
    assert statistics.median(spread_out(np.arange(1.0, 101.0))).interval == Interval(40, 61)
    assert statistics.median(np.arange(1.0, 7.0)).interval == Interval(1, 6)
    assert statistics.median(np.arange(1.0, 6.0)).interval is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_a_quantile_interval_misses_the_truth_in_5_of_100_runs_or_less(q: float) -> None:
    generator = np.random.default_rng(1)
    truth = -math.log(1 - q)
    runs = [statistics.quantile(generator.exponential(size=700), q).interval for _ in range(1000)]
    stated = [interval for interval in runs if interval is not None]
    assert np.mean([interval.low <= truth <= interval.high for interval in stated]) >= 0.95
    # 700 samples are just enough for a p99; where they happen to come in clumps they are not.
    assert len(stated) >= (800 if q == 0.99 else 1000)


def test_a_quantile_of_a_million_samples_has_an_interval() -> None:
    samples = np.random.default_rng(2).uniform(size=1_000_000)
    estimate = statistics.quantile(samples, 0.999)
    assert estimate.interval is not None
    assert estimate.interval.low < 0.999 < estimate.interval.high
    assert estimate.interval.high - estimate.interval.low < 2e-4


def test_windows_are_steady_when_three_in_a_row_lie_within_a_tenth() -> None:
    assert not statistics.is_steady([1.0, 1.0])
    assert not statistics.is_steady([2.0, 1.2, 1.0])
    assert statistics.is_steady([9.0, 1.1, 1.0, 1.05])


def test_the_spread_is_the_middle_half_over_the_median() -> None:
    assert statistics.spread(np.arange(101.0)) == 1.0
    assert statistics.spread(np.full(10, 3.0)) == 0.0


@pytest.mark.parametrize("correlation", [0.5, 0.9, 0.97])
def test_a_median_interval_covers_the_truth_where_successive_samples_are_alike(correlation: float) -> None:
    generator = np.random.default_rng(5)
    covered, naive = 0, 0
    for _ in range(300):
        samples = np.exp(_wandering(generator, 2000, correlation=correlation))
        interval = statistics.median(samples).interval
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
        ordered = np.sort(samples)
        # Ranks of 2,000 independent samples.
        naive += ordered[955] <= 1 <= ordered[1044]
    assert covered >= 0.92 * 300
    assert naive < covered


def test_a_ratio_is_free_of_what_slows_both() -> None:
    generator = np.random.default_rng(3)
    machine = np.exp(np.cumsum(generator.normal(size=200)) * 0.1)
    assert statistics.round_ratio(2.0 * machine, machine) == pytest.approx(2.0)


def test_a_ratio_is_free_of_a_steady_drift() -> None:
    clock = np.exp(np.linspace(0, 1, 40)).reshape(-1, 2)  # A B, B A, A B, …
    clock[1::2] = clock[1::2, ::-1]
    assert statistics.round_ratio(clock[:, 0], clock[:, 1]) == pytest.approx(1.0)


def test_a_single_round_gives_a_ratio() -> None:
    assert statistics.round_ratio([3.0], [2.0]) == pytest.approx(1.5)


def test_a_ratio_needs_six_sittings_for_an_interval() -> None:
    assert statistics.ratio_of_sittings([1.0, 1.1, 1.2, 1.3, 1.4]) == Estimate(pytest.approx(1.2), None)
    ratio = statistics.ratio_of_sittings([1.5, 1.0, 1.1, 1.2, 1.3, 1.4])
    assert ratio.interval == Interval(pytest.approx(1.0), pytest.approx(1.5))


def test_the_same_file_beside_itself_comes_out_equal_in_93_of_100_runs() -> None:
    """The promise of an A/A comparison, on simulated machines from quiet to restless, a thousand of them."""
    generator = np.random.default_rng(4)
    covered, half_widths = 0, []
    for _ in range(1000):
        interval = statistics.ratio_of_sittings(list(_sittings_of_equals(generator))).interval
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
        half_widths.append((interval.high - interval.low) / 2)
    assert covered >= 930
    assert np.median(half_widths) < 0.03


def _sittings_of_equals(generator: np.random.Generator, *, sittings: int = 10) -> Iterator[float]:
    """Every sitting's ratio of two equal contestants whose sessions, opened afresh, differ by up to 0.4 %."""
    correlation, drift = generator.choice([0.0, 0.9, 0.999]), generator.uniform(0, 0.3)
    rounds, calls = 8, 4
    wander = _wandering(generator, sittings * rounds * 2 * calls, correlation=correlation)
    wander += generator.normal(size=wander.size) * 0.03 + np.linspace(0, drift, wander.size)
    wander += (generator.random(wander.size) < 0.02) * generator.exponential(size=wander.size)
    turns = np.exp(np.median(wander.reshape(sittings, rounds, 2, calls), axis=3))  # [sittings, rounds, place]
    turns[:, 1::2] = turns[:, 1::2, ::-1]
    turns *= np.exp(generator.uniform(-0.004, 0.004, (sittings, 1, 2)))
    for first, second in turns.transpose(0, 2, 1):
        yield statistics.round_ratio(first, second)


def _wandering(generator: np.random.Generator, count: int, *, correlation: float) -> np.ndarray:
    """An autoregressive series of standard deviation 0.1: [count]."""
    steps = generator.normal(size=count) * 0.1 * math.sqrt(1 - correlation**2)
    state = generator.normal() * 0.1
    return np.array([state := correlation * state + step for step in steps])


def test_a_share_has_wilsons_interval() -> None:
    # Wilson (1927) for 15 of 20, as printed in common tables: 0.531 to 0.888.
    estimate = statistics.share(15, 20)
    assert estimate.value == 0.75
    assert estimate.interval == Interval(pytest.approx(0.5313, abs=1e-4), pytest.approx(0.8881, abs=1e-4))


@pytest.mark.parametrize("successes", [0, 7])
def test_a_share_stays_between_0_and_1(successes: int) -> None:
    interval = statistics.share(successes, 7).interval
    assert interval is not None
    assert 0 <= interval.low < interval.high <= 1
