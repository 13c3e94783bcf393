import numpy as np
import pytest

from runtime.scoring.calibration import Calibration


def test_a_classifier_that_is_right_as_often_as_it_is_sure_has_no_error() -> None:
    confidences = np.repeat([0.25, 0.75], 400)
    hits = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])
    assert Calibration.of(confidences, hits).error == pytest.approx(0)


def test_the_error_is_the_mean_distance_of_confidence_and_accuracy() -> None:
    # 90 images at 0.9 of which 60 are right, ten at 0.5 of which all are: 0.9 · |2/3 - 0.9| + 0.1 · |1 - 0.5|.
    confidences = np.repeat([0.9, 0.5], [90, 10])
    hits = np.concatenate([np.arange(90) % 3 != 0, np.ones(10, dtype=bool)])
    assert Calibration.of(confidences, hits).error == pytest.approx(0.26)


def test_every_image_is_in_one_bin_and_sure_ones_are_in_the_last() -> None:
    confidences = np.linspace(0, 1, 1001)
    calibration = Calibration.of(confidences, confidences > 0.5)
    assert calibration.counts.sum() == 1001
    assert calibration.counts.size == 15
    assert Calibration.of(np.ones(3), np.ones(3, dtype=bool)).counts[-1] == 3
