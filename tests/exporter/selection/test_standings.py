"""Who leads after a rung, and who goes on."""

from __future__ import annotations

import pytest

from exporter.selection.standings import Showing, kept_of, rank


@pytest.mark.parametrize(
    ("showings", "count", "ranked"),
    [
        # A standard error of the difference of two accuracies near 0.85 is 1.6 points of 1,000 images.
        ({"a": (0.850, 0.90), "b": (0.845, 0.88), "c": (0.80, 0.50)}, 1_000, "bac"),
        ({"a": (0.850, 0.90), "b": (0.845, 0.88), "c": (0.80, 0.50)}, 100_000, "abc"),
        ({"a": (0.857, 0.97), "b": (0.841, 0.96), "c": (0.82, 0.50)}, 1_000, "bac"),
        ({"a": (0.850, 0.88), "b": (0.850, 0.88), "c": (0.851, 0.88)}, 1_000, "cab"),
        ({"a": (0.850, None), "b": (0.845, 0.88)}, 1_000, "ba"),
        ({"a": (None, None), "b": (0.1, 2.3)}, 1_000, "ba"),
        ({"a": (None, None), "b": (None, None)}, 1_000, "ab"),
        ({"a": (1.0, 0.5), "b": (1.0, 0.4)}, 10, "ba"),
    ],
)
def test_what_valid_cannot_tell_apart_the_training_loss_does(
    showings: dict[str, tuple[float | None, float | None]], count: int, ranked: str
) -> None:
    found = rank({name: Showing(*showing) for name, showing in showings.items()}, metric="accuracy", count=count)
    assert "".join(found) == ranked


def test_training_accuracy_counts_as_much_as_training_loss() -> None:
    # A network that is unsure as smoothed labels want it has the lowest loss, and the lowest accuracy.
    showings = {
        "unsure": Showing(0.929, 0.6700, 0.9237),
        "best": Showing(0.933, 0.6711, 0.9288),
        "third": Showing(0.930, 0.6746, 0.9274),
        "clearly worse": Showing(0.900, 0.6000, 0.9500),
    }
    assert rank(showings, metric="accuracy", count=6_000) == ["best", "unsure", "third", "clearly worse"]
    without = {name: Showing(one.score, one.loss) for name, one in showings.items()}
    assert rank(without, metric="accuracy", count=6_000) == ["unsure", "best", "third", "clearly worse"]


def test_perplexities_decide_alone() -> None:
    showings = {"a": Showing(120.0, 4.0), "b": Showing(119.9, 5.0), "c": Showing(None, None)}
    assert rank(showings, metric="perplexity", count=1_000) == ["b", "a", "c"]


def test_a_balanced_accuracy_has_an_error_of_its_own() -> None:
    showings = {"a": Showing(0.90, 0.9, error=0.001), "b": Showing(0.89, 0.5)}
    assert rank(showings, metric="accuracy", count=1_000) == ["a", "b"]
    showings["a"] = Showing(0.90, 0.9, error=0.01)
    assert rank(showings, metric="accuracy", count=1_000) == ["b", "a"]


@pytest.mark.parametrize(
    ("known", "kept"),
    [({"b"}, ["a", "b"]), ({"c", "d"}, ["a", "c"]), (set(), ["a", "b"]), ({"a", "d"}, ["a", "b"])],
)
def test_the_best_known_network_stays_to_the_last_rung(known: set[str], kept: list[str]) -> None:
    assert kept_of(["a", "b", "c", "d"], 2, known=known) == kept
