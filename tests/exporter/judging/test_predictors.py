"""What short trainings foretell: the order that a rung puts architectures in."""

from __future__ import annotations

from exporter.judging.predictors import short_training
from exporter.selection.standings import Showing


def test_a_rung_orders_by_loss_what_valid_cannot_tell_apart() -> None:
    showings = [Showing(0.80, 0.9), Showing(0.81, 1.0), Showing(0.5, 0.1), Showing(None, None)]
    found = short_training(2, showings, metric="accuracy", count=500)
    assert found.name == "2 epochs of training"
    assert found.scores == (0, -1, -2, -3)
    exact = short_training(1, showings, metric="accuracy", count=10**9)
    assert exact.name == "1 epoch of training"
    assert exact.scores == (-1, 0, -2, -3)


def test_of_perplexity_less_is_better() -> None:
    found = short_training(1, [Showing(90.0, 4.0), Showing(80.0, 5.0)], metric="perplexity", count=100)
    assert found.scores == (-1, 0)
