"""What trainings with several seeds, scored on the same images, say of the networks: accuracies, differences, spreads.

Two things are drawn at random: the images of the test split, which all networks share, and a training's seed. An
accuracy is the mean over both, and so varies by the sum of three parts: an image's own difficulty, a seed's luck, and
their interaction. The parts are estimated from the table of right and wrong answers (a two-way analysis of variance),
each with its degrees of freedom, and give Student intervals. Where networks themselves are drawn at random, as a
search's random rivals are, a network's mean over its seeds takes the place of a seed.

Knows of arrays alone. Source: Searle, Casella and McCulloch 1992, "Variance Components", for the parts; Satterthwaite
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
# Beyond this chance that a pool of equals spreads as far, its networks are not told apart.
_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Replicates:
    """Answers that differ by one thing drawn at random, such as the seed: one row for each draw.

    Args: answers: [S, N], 1 where an image is answered rightly, else 0; or means of those. variance, freedom: of the
    rows' means, where it is estimated from these and others' together; None takes it from these rows alone.
    """

    answers: np.ndarray
    variance: float | None = None
    freedom: float = 0.0

    @property
    def mean(self) -> float:
        return float(self.answers.mean())

    @property
    def per_image(self) -> np.ndarray:
        """[N]."""
        mean: np.ndarray = self.answers.mean(axis=0)
        return mean

    @property
    def of_draws(self) -> tuple[float, float]:
        """Variance of the mean over all rows by the luck of their draws, their interaction with images included; and
        its degrees of freedom. One row tells nothing of it: (0, 0)."""
        count = len(self.answers)
        if self.variance is not None:
            return self.variance / count, self.freedom
        if count < 2:
            return 0.0, 0.0
        return float(self.answers.mean(axis=1).var(ddof=1)) / count, count - 1

    @property
    def of_interaction(self) -> float:
        """Variance of the mean over all rows and images by the interaction of both."""
        return interaction(self.answers) / self.answers.size


def interaction(table: np.ndarray) -> float:
    """Variance of what is left of a table [rows, columns] without its rows' and its columns' means; 0 of one row."""
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((left**2).sum() / ((rows - 1) * (columns - 1)))


def of_networks(answers: Sequence[np.ndarray]) -> list[Replicates]:
    """The trainings of K networks, [S, N] each, with one variance of seeds for all: a few seeds each tell it badly."""
    parts = [(float(one.mean(axis=1).var(ddof=1)), len(one) - 1) for one in answers if len(one) > 1]
    freedom = sum(count for _, count in parts)
    if not freedom:
        return [Replicates(one) for one in answers]
    variance = sum(part * count for part, count in parts) / freedom
    return [Replicates(one, variance, freedom) for one in answers]


def of_draws(networks: Sequence[Replicates]) -> Replicates:
    """Networks that are themselves drawn at random, as one: a row for each, its mean over seeds."""
    return Replicates(np.stack([one.per_image for one in networks]))


def accuracy(network: Replicates) -> Estimate:
    """Of a network, over all seeds and all images of this kind; its interval is Wilson's, of as many images, each tried
    once, as would vary as much."""
    value, count = network.mean, len(network.per_image)
    error, quantile = _error(float(network.per_image.var()), count, [network])
    worth = value * (1 - value) / error**2 if 0 < value < 1 and error else count
    return Estimate(value, score_interval(value, worth, z=quantile))


def difference(first: Replicates, second: Replicates) -> Estimate:
    """By how much the first's accuracy is higher, on the same images: paired, so what all find hard cancels.

    The interval counts two images more, half a one for each way in which two answers can be right and wrong: networks
    that agree on the few images there are need not agree on others. Source: Agresti and Min 2005, "Simple improved
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
    """The standard error of a mean over images and draws, and how many of it a 95 % interval reaches to each side.

    Args: of_an_image: the variance from image to image, among the `count` there are. replicates: those that have a
    `variance` share one estimate.
    """
    freedom_of_images = max(1, count - 1)
    of_images = of_an_image / freedom_of_images
    variance, squares = of_images, of_images**2 / freedom_of_images
    shared, shared_freedom = 0.0, 0.0
    for one in replicates:
        part, freedom = one.of_draws
        # Images have counted the interaction already.
        variance += max(0.0, part - one.of_interaction)
        if one.variance is not None:
            shared, shared_freedom = shared + part, freedom
        elif freedom:
            squares += part**2 / freedom
    if shared_freedom:
        # One estimate, used several times, errs alike each time: its degrees of freedom count once.
        squares += shared**2 / shared_freedom
    # To two digits: no finer than the degrees of freedom are known, and few enough values to remember.
    freedom = float(f"{variance**2 / squares:.2g}") if variance else float(freedom_of_images)
    return math.sqrt(variance), _student(freedom)


@dataclass(frozen=True)
class Spread:
    """How far the accuracies of a pool of networks lie apart, beside how far those of equals would."""

    deviation: float
    """Standard deviation of the networks' means over their seeds."""
    noise: float
    """The same, expected of networks that are equally good: other seeds, and other images."""
    p_value: float
    """The chance that equals spread as far."""

    @property
    def is_noise(self) -> bool:
        """Whether there is nothing to rank."""
        return self.p_value > _SIGNIFICANCE

    @property
    def signal(self) -> float:
        """Standard deviation of the true accuracies."""
        return math.sqrt(max(0.0, self.deviation**2 - self.noise**2))


def spread(networks: Sequence[Replicates]) -> Spread | None:
    """Of a pool; None of fewer than three networks.

    Of one seed each, seeds count as difference: the noise is that of images alone.
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
    """The 97.5 % point of Student's t, within a per cent, by drawing from it."""
    return float(np.quantile(np.abs(_generator().standard_t(freedom, _NUM_DRAWS)), _CONFIDENCE))


def _generator() -> np.random.Generator:
    return numpy_generator(0, "evidence")
