import math

import numpy as np
import pytest

from runtime import statistics
from runtime.statistics import Interval


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


def test_the_median_of_an_even_count_is_the_middle_of_two() -> None:
    assert statistics.median(np.array([4.0, 1.0, 3.0, 2.0])).value == 2.5


def test_percentiles_without_support_are_absent() -> None:
    stated = statistics.percentiles(np.arange(130.0))
    assert {q for q, estimate in stated.items() if estimate is not None} == {0.90, 0.95}


def test_the_interval_of_a_median_has_the_ranks_of_the_textbook() -> None:
    # Known for 95 %: ranks 2 and 9 of 10 samples, 40 and 61 of 100; none below 6.
    assert statistics.median(np.arange(1.0, 11.0)).interval == Interval(2, 9)
    assert statistics.median(np.arange(1.0, 101.0)).interval == Interval(40, 61)
    assert statistics.median(np.arange(1.0, 7.0)).interval == Interval(1, 6)
    assert statistics.median(np.arange(1.0, 6.0)).interval is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_a_quantile_interval_covers_the_truth_in_95_of_100_runs_or_a_little_more(q: float) -> None:
    generator = np.random.default_rng(1)
    truth = -math.log(1 - q)
    runs = [statistics.quantile(generator.exponential(size=700), q).interval for _ in range(1000)]
    covered = np.mean([interval is not None and interval.low <= truth <= interval.high for interval in runs])
    assert 0.94 <= covered <= 0.995


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


def test_a_ratio_is_free_of_what_slows_both() -> None:
    generator = np.random.default_rng(3)
    machine = np.exp(np.cumsum(generator.normal(size=200)) * 0.1)
    ratio = statistics.paired_ratio(2.0 * machine, machine)
    assert ratio.value == pytest.approx(2.0)
    assert ratio.interval is not None
    assert ratio.interval.low == pytest.approx(2.0)
    assert ratio.interval.high == pytest.approx(2.0)


def test_the_resolution_widens_a_ratio() -> None:
    ratio = statistics.paired_ratio([1.0] * 20, [1.0] * 20, resolution=0.01)
    assert ratio.interval == Interval(pytest.approx(1 / 1.01), pytest.approx(1.01))


def test_a_single_round_gives_a_ratio_and_no_interval() -> None:
    assert statistics.paired_ratio([3.0], [2.0]) == statistics.Estimate(pytest.approx(1.5), None)


@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.999])
def test_equal_contestants_on_a_drifting_noisy_machine_come_out_equal(correlation: float) -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(100):
        first, second = _interleaved_series(generator, num_rounds=200, calls=4, correlation=correlation)
        interval = statistics.paired_ratio(first, second).interval
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert covered >= 90


def _interleaved_series(
    generator: np.random.Generator, *, num_rounds: int, calls: int, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Medians of two equal contestants' turns, A B B A, in a wandering, drifting machine with stray slow calls."""
    total = num_rounds * 2 * calls
    steps = generator.normal(size=total) * 0.1 * math.sqrt(1 - correlation**2)
    wander = np.empty(total)
    state = generator.normal() * 0.1
    for index, step in enumerate(steps):
        state = correlation * state + step
        wander[index] = state
    slow_calls = (generator.random(total) < 0.02) * generator.exponential(size=total)
    logs = wander + generator.normal(size=total) * 0.03 + np.linspace(0, 0.3, total) + slow_calls
    medians = np.exp(np.median(logs.reshape(num_rounds, 2, calls), axis=2))  # [rounds, place in the round]
    medians[1::2] = medians[1::2, ::-1]
    return medians[:, 0], medians[:, 1]


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
