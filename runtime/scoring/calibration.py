"""Calibration of a classifier: whether its confidence equals its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# N images, M bins

_NUM_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Images in bins of equal width by the probability of the predicted class."""

    counts: np.ndarray
    """[M] int64: images of each bin."""
    confidence: np.ndarray
    """[M]: mean probability of the predicted class; 0 in an empty bin."""
    accuracy: np.ndarray
    """[M]: share of correct predictions; 0 in an empty bin."""

    @classmethod
    def of(cls, confidences: np.ndarray, hits: np.ndarray) -> Calibration:
        """Args: confidences: [N], in [0, 1]. hits: [N] bool, whether the prediction is correct."""
        bins = np.minimum((confidences * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
        counts = np.bincount(bins, minlength=_NUM_BINS)
        filled = np.maximum(counts, 1)
        return cls(
            counts,
            np.bincount(bins, weights=confidences, minlength=_NUM_BINS) / filled,
            np.bincount(bins, weights=hits, minlength=_NUM_BINS) / filled,
        )

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance between confidence and accuracy, over all images.

        Source: Guo et al. 2017, section 3, with 15 bins.
        """
        return float((self.counts * np.abs(self.accuracy - self.confidence)).sum() / self.counts.sum())
