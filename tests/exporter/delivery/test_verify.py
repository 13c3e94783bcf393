"""What verification counts as equal, as a tie, and as a failure."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.delivery.verify import compare as compare_logits
from exporter.delivery.verify import edge_images
from runtime.models.tolerance import Tolerance

TOLERANCE = Tolerance(atol=1e-4, rtol=1e-4)
EXPECTED = np.array([[1.0, 5.0, 0.0], [2.0, -4.0, 1.0]], dtype=np.float32)
LABELS = np.array([1, 2])


def compare(found: np.ndarray, expected: np.ndarray = EXPECTED):  # type: ignore[no-untyped-def]
    return compare_logits("test", 2, found, expected, labels=LABELS, tolerance=TOLERANCE)


def test_equal_logits_pass() -> None:
    result = compare(EXPECTED.copy())
    assert result.passed
    assert (result.max_difference, result.disagreements, result.ties) == (0.0, 0, 0)
    assert result.accuracy == result.torch_accuracy == 0.5


def test_equal_logits_pass_where_nothing_is_allowed() -> None:
    exact = Tolerance(atol=0, rtol=0)
    same = compare_logits("test", 2, EXPECTED.copy(), EXPECTED, labels=LABELS, tolerance=exact)
    assert (same.passed, same.largest_excess) == (True, 0)
    other = compare_logits("test", 2, np.nextafter(EXPECTED, 9), EXPECTED, labels=LABELS, tolerance=exact)
    assert (other.passed, other.largest_excess) == (False, np.inf)


@pytest.mark.parametrize(("difference", "passes"), [(5.9e-4, True), (6.1e-4, False)])
def test_the_bound_is_atol_plus_rtol_times_the_images_largest_logit(difference: float, passes: bool) -> None:
    found = EXPECTED.astype(np.float64)
    found[0, 2] += difference  # the image's largest logit is 5, so 1e-4 + 5e-4 is allowed
    assert compare(found, EXPECTED.astype(np.float64)).passed is passes


def test_the_bound_of_one_image_does_not_come_from_another() -> None:
    expected = np.array([[100.0, 0.0], [1.0, 0.0]])
    found = expected + np.array([[0.0, 0.0], [0.0, 5e-4]])
    result = compare_logits("test", 2, found, expected, labels=None, tolerance=TOLERANCE)
    assert not result.passed
    assert result.accuracy is None


def test_another_answer_fails() -> None:
    found = EXPECTED.copy()
    found[0] = [5.0, 1.0, 0.0]
    result = compare(found)
    assert result.disagreements == 1
    assert not result.passed


def test_a_lead_under_twice_the_tolerance_is_a_tie() -> None:
    expected = np.array([[1.0, 1.0003, 0.0], [2.0, -4.0, 1.0]])
    found = expected.copy()
    found[0, :2] += [1.9e-4, -1.9e-4]
    result = compare(found, expected)
    assert (result.ties, result.disagreements) == (1, 0)
    assert result.passed


def test_a_logit_that_is_no_number_fails() -> None:
    found = EXPECTED.copy()
    found[1, 0] = np.nan
    assert not compare(found).passed


def test_edge_images_are_constant_and_cover_every_channel() -> None:
    images = edge_images((5, 4, 3))
    assert images.shape == (6, 5, 4, 3)
    assert images.dtype == np.uint8
    assert (images == images[:, :1, :1]).all()
    assert images[0].max() == 0
    assert images[1].min() == 255
    assert [image[0, 0].argmax() for image in images[3:]] == [0, 1, 2]
