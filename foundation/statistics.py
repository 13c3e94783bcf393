"""Statistics of measured times: quantiles, their confidence intervals, ratios, and shares. Pure numpy.

The percentile rule: the q-quantile of n samples is the ceil(q*n)-th smallest, which is a measured sample, never an
interpolation; and it is stated only if n is large enough to support it (`supports`).
Intervals are at 95 % confidence and rank-based, so they assume nothing about the shape of a distribution. Nor do they
assume that successive samples are independent: correlation between them makes an interval wider.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# n samples, q a quantile in (0, 1)

PERCENTILES = (0.90, 0.95, 0.99, 0.999)
_CONFIDENCE = 0.95
# 97.5 % point of the standard normal distribution.
_Z = 1.959963984540054
# Number of batches whose variance shows how correlated successive samples are, and the fewest samples in a batch.
_BATCHES = 10
_SHORTEST_BATCH = 10
# That variance is itself an estimate: Student's 97.5 % point of 9 degrees of freedom over the normal one, squared.
_STUDENT = (2.262 / _Z) ** 2


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None
    """None if there are too few samples for an interval."""


def supports(count: int, q: float) -> bool:
    """Whether `count` samples are enough to state the q-quantile.

    MLPerf's early-stopping rule at 99 % confidence with one sample allowed above: if the true share of samples above
    the stated value were 1 - q or more, the probability of at most one of `count` above it would be at most 1 %. That
    takes 64 samples for p90, 130 for p95, 662 for p99 and 6,636 for p99.9.
    """
    none_above = q**count
    one_above = count * (1 - q) * q ** (count - 1)
    return none_above + one_above <= 0.01


@functools.cache
def fewest_samples(q: float) -> int:
    """The smallest count that supports the q-quantile."""
    return next(count for count in itertools.count(1) if supports(count, q))


def quantile(samples: np.ndarray, q: float) -> Estimate:
    """The q-quantile of `samples` [n, n >= 1, in the order they were taken] by the rule above, with its interval."""
    ordered = np.sort(samples)
    rank = max(1, math.ceil(q * ordered.size - 1e-9))
    value = float(ordered[rank - 1])
    ranks = _interval_ranks(ordered.size, q, independent=_independent_count(samples <= value))
    interval = None if ranks is None else Interval(float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]))
    return Estimate(value, interval)


def median(samples: np.ndarray) -> Estimate:
    """The ordinary median (the mean of the middle two of an even count), with its order-statistic interval."""
    return Estimate(float(np.median(samples)), quantile(samples, 0.5).interval)


def percentiles(samples: np.ndarray) -> dict[float, Estimate | None]:
    """Returns all `PERCENTILES`, each None if the count does not support it."""
    return {q: quantile(samples, q) if supports(samples.size, q) else None for q in PERCENTILES}


def spread(samples: np.ndarray) -> float:
    """The interquartile range as a share of the median: 0.1 and more is a noisy series."""
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle) if middle > 0 else 0.0


def is_steady(window_medians: Sequence[float], *, windows: int = 3, tolerance: float = 0.10) -> bool:
    """Whether the last `windows` medians lie within `tolerance` of each other (largest over smallest)."""
    if len(window_medians) < windows:
        return False
    last = window_medians[-windows:]
    return max(last) <= (1 + tolerance) * min(last)


def round_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median of the ratios of two interleaved series, round by round.

    A disturbance of both members of a round, such as other load or a falling clock, cancels in their ratio. Rounds are
    averaged in pairs, measured A B B A, so that a steady drift cancels too.

    Args: numerator, denominator: [n, n >= 1], positive; element i of both was measured in round i.
    """
    logs = np.log(np.asarray(numerator, dtype=np.float64)) - np.log(np.asarray(denominator, dtype=np.float64))
    if logs.size > 1:
        logs = logs[: logs.size // 2 * 2].reshape(-1, 2).mean(axis=1)
    return math.exp(float(np.median(logs)))


def ratio_of_sittings(ratios: Sequence[float]) -> Estimate:
    """The median of independent sittings' ratios, with its order-statistic interval.

    Rounds of one sitting share constant properties of its sessions, such as their memory addresses: two sessions of one
    file differ by up to 0.4 % for their whole lifetime. So a sitting counts once, for any number of rounds, and an
    interval needs six sittings.

    Args: ratios: [n, n >= 1], positive, one for each sitting.
    """
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    ordered = np.sort(logs)
    ranks = _interval_ranks(ordered.size, 0.5, independent=ordered.size)
    interval = None
    if ranks is not None:
        interval = Interval(math.exp(ordered[ranks[0] - 1]), math.exp(ordered[ranks[1] - 1]))
    return Estimate(math.exp(float(np.median(logs))), interval)


def share(successes: int, count: int) -> Estimate:
    """The proportion successes / count with Wilson's 95 % score interval."""
    proportion = successes / count
    return Estimate(proportion, score_interval(proportion, count))


def share_of(hits: np.ndarray) -> Estimate:
    """The share of true among `hits` [n, n >= 1, bool, in the order they were taken], with Wilson's interval for their
    effective number of independent trials."""
    proportion = float(hits.mean())
    return Estimate(proportion, score_interval(proportion, _independent_count(hits)))


def score_interval(proportion: float, count: float, *, z: float = _Z) -> Interval:
    """Wilson's interval of a proportion among `count` independent trials, which may be an effective number: within
    [0, 1], and wider than zero even if all succeed. Args: z: standard errors on each side."""
    scale = 1 / (1 + z**2 / count)
    centre = scale * (proportion + z**2 / (2 * count))
    half_width = scale * z * math.sqrt(proportion * (1 - proportion) / count + z**2 / (4 * count**2))
    return Interval(max(0.0, centre - half_width), min(1.0, centre + half_width))


def _independent_count(hits: np.ndarray) -> int:
    """The effective number of independent samples: as many estimate the share of `hits` [n, bool, in order] as well.

    By batch means: the variance of the shares of `_BATCHES` batches is that of independent samples, or larger.
    """
    length = hits.size // _BATCHES
    mean = float(hits.mean())
    if length < _SHORTEST_BATCH or mean in (0, 1):
        return hits.size
    shares = hits[: length * _BATCHES].reshape(_BATCHES, length).mean(axis=1)
    inflation = float(shares.var(ddof=1)) / (mean * (1 - mean) / length)
    return max(1, round(hits.size / max(1.0, inflation * _STUDENT)))


def _interval_ranks(count: int, q: float, *, independent: int) -> tuple[int, int] | None:
    """The 1-based ranks, among `count` samples, that enclose the q-quantile at 95 % confidence; None if too few.

    independent: their effective number. At most 2.5 % miss on each side: for any distribution, the number of samples
    below the true quantile is binomial(independent, q).
    """
    tail = (1 - _CONFIDENCE) / 2
    cumulative = _binomial_cumulative(independent, q)
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    if low < 1 or high > independent:
        return None
    scale = (count + 1) / (independent + 1)
    return math.floor(low * scale), math.ceil(high * scale)


def _binomial_cumulative(count: int, q: float) -> np.ndarray:
    """P(X <= k) for X ~ binomial(count, q): [count + 1], k from 0."""
    k = np.arange(1, count + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((count - k + 1) / k))])
    k = np.arange(count + 1)
    return np.cumsum(np.exp(log_choose + k * math.log(q) + (count - k) * math.log1p(-q)))
