"""How well a score predicts the results of trainings over a pool: Kendall's τ with its error, and the regret.

Knows only numbers. The results come from several trainings that differ in their seed; the agreement of these with each
other is the ceiling for a predictor.
"""

# n things, S seeds

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NUM_PERMUTATIONS = 10_000
_AT_A_TIME = 100


@dataclass(frozen=True)
class Agreement:
    """The agreement of a score with trainings; None where τ is undefined, because all values of one side are equal."""

    tau: float | None
    """Kendall's τ-b with the trainings of one seed, in [-1, 1]; the mean over the seeds."""
    standard_error: float | None
    """Standard error of τ over pools of this kind."""
    share: float | None
    """τ divided by its ceiling, `seed_tau`; None if that is not known to be above 0."""
    p_value: float | None
    """Probability that a random order agrees, or disagrees, as much."""
    upper_half_tau: float | None
    """τ within the better half of the pool, by training: how well the score chooses among good things."""
    regret: float
    """How much worse the best of the first `top` by score is than the best of the pool, in the mean over the seeds."""
    top: int


def agreement(scores: Sequence[float], trained: np.ndarray, *, top: int, generator: np.random.Generator) -> Agreement:
    """The agreement of a predictor's scores [n] with the results of trainings [S, n]; higher is better for both.

    Both may contain minus infinity, the worst value, where there is no result.
    """
    values = np.asarray(scores, dtype=float)
    mean = trained.mean(axis=0)
    half = np.argsort(-mean, kind="stable")[: -(-len(mean) // 2)]
    first = np.argsort(-values, kind="stable")[:top]
    finite = mean[np.isfinite(mean)]
    best_of_top = mean[first].max()
    tau, most = mean_tau(values, trained), seed_tau(trained)
    return Agreement(
        tau=tau,
        standard_error=_standard_error(values, trained),
        share=tau / most if tau is not None and most is not None and tells_apart(trained) else None,
        p_value=permutation_p_value(values, trained, generator=generator),
        upper_half_tau=mean_tau(values[half], trained[:, half]),
        # The lowest finite result of the pool replaces minus infinity.
        regret=float(mean.max() - max(best_of_top, finite.min())) if finite.size else 0.0,
        top=top,
    )


def seed_tau(trained: np.ndarray) -> float | None:
    """Kendall's τ between trainings [S, n] of different seeds, the mean over pairs: the ceiling for a predictor."""
    return _mean([kendall_tau(one, other) for one, other in itertools.combinations(trained, 2)])


def seed_standard_error(trained: np.ndarray) -> float | None:
    """Standard error of `seed_tau`."""
    return _jackknife([seed_tau(np.delete(trained, place, axis=1)) for place in range(trained.shape[1])])


def tells_apart(trained: np.ndarray) -> bool:
    """Whether trainings [S, n] agree with each other by more than two standard errors.

    A few things are often in the same order by chance, and their estimated error is then 0: so the error is taken as at
    least that of random orders. Source: Kendall 1938, "A new measure of rank correlation".
    """
    tau, error = seed_tau(trained), seed_standard_error(trained)
    if tau is None or error is None:
        return False
    seeds, count = trained.shape
    of_chance = math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)) / math.comb(seeds, 2))
    return tau > 2 * max(error, of_chance)


def mean_tau(scores: np.ndarray, trained: np.ndarray) -> float | None:
    """Kendall's τ of scores [n] with trainings [S, n], the mean over S; None where one is not defined."""
    return _mean([kendall_tau(scores, one) for one in trained])


def kendall_tau(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float | None:
    """τ-b of two scores of the same things, in which ties count for neither side; None where all of one are equal.

    Source: Kendall 1945, "The treatment of ties in ranking problems".
    """
    one, other = _signs(first), _signs(second)
    pairs = float((one**2).sum()) * float((other**2).sum())
    return float((one * other).sum()) / pairs**0.5 if pairs else None


def permutation_p_value(
    scores: Sequence[float] | np.ndarray, trained: np.ndarray, *, generator: np.random.Generator
) -> float | None:
    """The share of random orders, including the given one, whose mean τ is at least as far from zero; None as for τ.

    Args: trained: [S, n].
    """
    found = mean_tau(np.asarray(scores), trained)
    if found is None:
        return None
    # Only the scores are permuted: the trainings of an architecture stay together.
    signs = np.stack([_signs(one) / math.sqrt(float((_signs(one) ** 2).sum())) for one in trained]).mean(axis=0)
    own = _signs(scores)
    own = own / math.sqrt(float((own**2).sum()))
    extreme = 0
    for _ in range(0, _NUM_PERMUTATIONS, _AT_A_TIME):
        orders = generator.permuted(np.tile(np.arange(len(own)), (_AT_A_TIME, 1)), axis=1)
        taus = np.einsum("pij,ij->p", own[orders[:, :, None], orders[:, None, :]], signs)
        extreme += int((np.abs(taus) >= abs(found) - 1e-12).sum())
    return (extreme + 1) / (_NUM_PERMUTATIONS + 1)


def _standard_error(scores: np.ndarray, trained: np.ndarray) -> float | None:
    places = range(len(scores))
    return _jackknife([mean_tau(np.delete(scores, place), np.delete(trained, place, axis=1)) for place in places])


def _jackknife(left_out: Sequence[float | None]) -> float | None:
    """The standard error, from the values that leave out each thing in turn. Source: Efron and Stein 1981."""
    values = [value for value in left_out if value is not None]
    if len(values) < len(left_out) or len(values) < 3:
        return None
    return math.sqrt((len(values) - 1) * float(np.var(values)))


def _mean(taus: Sequence[float | None]) -> float | None:
    values = [tau for tau in taus if tau is not None]
    return sum(values) / len(values) if values and len(values) == len(taus) else None


def _signs(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """1 where the first of a pair is larger, -1 where it is smaller: [n, n]; values may be infinite."""
    return np.greater.outer(values, values).astype(int) - np.less.outer(values, values)
