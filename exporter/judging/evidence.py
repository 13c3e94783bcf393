"""Statistics of networks trained with several seeds and scored on the same images: accuracies, differences, spreads.

Two things are random: the images of the test split, which all networks share, and the seed of a training. An accuracy
is the mean over both, so its variance is the sum of three parts: the difficulty of images, the effect of seeds, and
their interaction. The parts are estimated from the table of right and wrong answers (a two-way analysis of variance),
each with its degrees of freedom, and give Student intervals. If the networks themselves are random, as a search's
random rivals are, a network's mean over its seeds takes the place of a seed.

Knows only arrays. Source: Searle, Casella and McCulloch 1992, "Variance Components", for the parts; Satterthwaite
1946 for the degrees of freedom of their sum.
"""

# S seeds of a network, N images, K networks

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.seeds import numpy_generator
from foundation.statistics import Estimate, Interval, score_interval

_CONFIDENCE = 0.95
_NUM_DRAWS = 100_000
# A pool has nothing to rank if equally good networks spread as far with a higher probability than this.
_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Replicates:
    """Answers that differ in one random thing, such as the seed: one row for each draw.

    Args: answers: [S, N], 1 where an image is classified correctly, else 0; or means of those. variance: of the rows'
    means, estimated together with other networks; None: estimated from these rows alone. freedom: degrees of freedom of
    `variance`.
    """

    answers: np.ndarray
    variance: float | None = None
    freedom: float = 0.0

    @property
    def mean(self) -> float:
        return float(self.answers.mean())

    @property
    def per_image(self) -> np.ndarray:
        """The mean over the rows, [N]."""
        mean: np.ndarray = self.answers.mean(axis=0)
        return mean

    @property
    def of_draws(self) -> tuple[float, float]:
        """Variance of the mean over all rows due to their draws, including the interaction with images; and its degrees
        of freedom. (0, 0) for a single row, which gives no estimate."""
        count = len(self.answers)
        if self.variance is not None:
            return self.variance / count, self.freedom
        if count < 2:
            return 0.0, 0.0
        return float(self.answers.mean(axis=1).var(ddof=1)) / count, count - 1

    @property
    def of_interaction(self) -> float:
        """Variance of the mean over all rows and images due to the interaction of both."""
        return interaction(self.answers) / self.answers.size


def interaction(table: np.ndarray) -> float:
    """Variance of a table [rows, columns] without its rows' and columns' means; 0 for one row or column."""
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((left**2).sum() / ((rows - 1) * (columns - 1)))


def of_networks(answers: Sequence[np.ndarray]) -> list[Replicates]:
    """The trainings of K networks, [S, N] each, with one seed variance for all: few seeds each estimate it badly."""
    parts = [(float(one.mean(axis=1).var(ddof=1)), len(one) - 1) for one in answers if len(one) > 1]
    freedom = sum(count for _, count in parts)
    if not freedom:
        return [Replicates(one) for one in answers]
    variance = sum(part * count for part, count in parts) / freedom
    return [Replicates(one, variance, freedom) for one in answers]


def of_draws(networks: Sequence[Replicates]) -> Replicates:
    """Networks that are themselves random, as draws of one thing: a row for each, its mean over seeds."""
    return Replicates(np.stack([one.per_image for one in networks]))


def accuracy(network: Replicates) -> Estimate:
    """A network's accuracy over all seeds and all images of this kind. The interval is Wilson's, for the number of
    images that, each tried once, would give the same variance."""
    value, count = network.mean, len(network.per_image)
    error, quantile = _error(float(network.per_image.var()), count, [network])
    worth = value * (1 - value) / error**2 if 0 < value < 1 and error else count
    return Estimate(value, score_interval(value, worth, z=quantile))


def difference(first: Replicates, second: Replicates) -> Estimate:
    """How much higher the first's accuracy is, on the same images: paired, so the difficulty of images cancels.

    The interval counts two more images, half an image for each way in which two answers can be right and wrong:
    networks that agree on few images need not agree on others. Source: Agresti and Min 2005, "Simple improved
    confidence intervals for comparing matched proportions".
    """
    per_image = first.per_image - second.per_image
    count = len(per_image) + 2
    centre = float(per_image.sum()) / count
    of_an_image = (float((per_image**2).sum()) + 1) / count - centre**2
    error, quantile = _error(of_an_image, count, [first, second])
    interval = Interval(max(-1.0, centre - quantile * error), min(1.0, centre + quantile * error))
    return Estimate(first.mean - second.mean, interval)


def _error(of_an_image: float, count: int, replicates: Sequence[Replicates]) -> tuple[float, float]:
    """The standard error of a mean over images and draws, and its multiple that a 95 % interval extends to each side.

    Args: of_an_image: the variance between the `count` images. replicates: those that have a `variance` share one
    estimate of it.
    """
    freedom_of_images = max(1, count - 1)
    of_images = of_an_image / freedom_of_images
    variance, squares = of_images, of_images**2 / freedom_of_images
    shared, shared_freedom = 0.0, 0.0
    for one in replicates:
        part, freedom = one.of_draws
        # The images' variance already includes the interaction.
        variance += max(0.0, part - one.of_interaction)
        if one.variance is not None:
            shared, shared_freedom = shared + part, freedom
        elif freedom:
            squares += part**2 / freedom
    if shared_freedom:
        # One estimate, used several times, has the same error each time: its degrees of freedom count once.
        squares += shared**2 / shared_freedom
    # To two digits: the degrees of freedom are not known better, and `_student` caches fewer values.
    freedom = float(f"{variance**2 / squares:.2g}") if variance else float(freedom_of_images)
    return math.sqrt(variance), _student(freedom)


@dataclass(frozen=True)
class Spread:
    """The spread of the accuracies of a pool of networks, and the spread expected of equally good ones."""

    deviation: float
    """Standard deviation of the networks' means over their seeds."""
    noise: float
    """The same, expected of equally good networks: the effect of seeds and images."""
    p_value: float
    """Probability that equally good networks spread as far."""

    @property
    def is_noise(self) -> bool:
        """Whether there is nothing to rank."""
        return self.p_value > _SIGNIFICANCE

    @property
    def signal(self) -> float:
        """Standard deviation of the true accuracies."""
        return math.sqrt(max(0.0, self.deviation**2 - self.noise**2))


def spread(networks: Sequence[Replicates]) -> Spread | None:
    """The spread of a pool; None for fewer than three networks.

    With one seed each, the effect of seeds counts as signal: the noise is that of images alone.
    """
    if len(networks) < 3:
        return None
    table = np.stack([one.per_image for one in networks])  # [K, N]
    deviation2 = float(table.mean(axis=1).var(ddof=1))
    images = table.shape[1]
    of_seeds = float(np.mean([one.of_draws[0] for one in networks]))
    freedom = max(one.of_draws[1] for one in networks)
    within = float(np.mean([one.of_interaction for one in networks]))
    of_images = interaction(table) / images
    noise2 = of_images + max(0.0, of_seeds - within)
    if noise2 == 0:
        return Spread(math.sqrt(deviation2), 0.0, 1.0 if deviation2 == 0 else 0.0)
    squares = of_images**2 / ((len(table) - 1) * (images - 1)) + (of_seeds**2 / freedom if freedom else 0.0)
    draws = _generator().f(len(table) - 1, noise2**2 / squares, _NUM_DRAWS)
    return Spread(math.sqrt(deviation2), math.sqrt(noise2), float((draws >= deviation2 / noise2).mean()))


@functools.cache
def _student(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, within one per cent, from random draws."""
    return float(np.quantile(np.abs(_generator().standard_t(freedom, _NUM_DRAWS)), _CONFIDENCE))


def _generator() -> np.random.Generator:
    return numpy_generator(0, "evidence")
