"""When a training is told that it learns its examples by heart."""

from __future__ import annotations

from typing import Any

from exporter.retraining.overfitting import Overfitting


def records(*losses: tuple[float, float]) -> list[dict[str, Any]]:
    """Of train's and valid's losses, epoch by epoch."""
    return [
        {"epoch": epoch, "loss": train, "valid_loss": valid} for epoch, (train, valid) in enumerate(losses, start=1)
    ]


RUNAWAY = records((1.0, 1.0), (0.8, 0.9), *((0.7 - 0.1 * n, 1.0 + 0.1 * n) for n in range(6)))


def test_a_training_is_warned_once_after_five_epochs_apart() -> None:
    watch = Overfitting()
    found = [watch.look(record) for record in RUNAWAY]
    assert [number for number, text in enumerate(found) if text] == [6]
    assert found[6] == (
        "train runs away from valid: since epoch 2 the loss went from 0.800 to 0.300 on train, but from 0.900 to 1.400 "
        "on valid. More augmentation or weight decay, a teacher, more data or fewer epochs may help"
    )


def test_it_goes_on_watching_where_it_stopped() -> None:
    first, second = Overfitting(), Overfitting()
    for record in RUNAWAY[:6]:
        assert first.look(record) is None
    second.load(first.state())
    assert second.look(RUNAWAY[6]) is not None
    third = Overfitting()
    third.load(second.state())
    assert third.look(RUNAWAY[7]) is None


def test_noise_better_epochs_and_trainings_that_stand_still_are_no_reason() -> None:
    calm = records((1.0, 1.0), *((0.9, 1.05) for _ in range(10)))
    recovering = records((1.0, 1.0), *([(0.9, 1.2)] * 4 + [(0.8, 1.0)] * 1) * 3)
    worse = records((0.5, 1.0), *((0.6, 1.5) for _ in range(10)))
    without_valid = [{"epoch": 1, "loss": 1.0}] * 10
    for case in (calm, recovering, worse, without_valid):
        watch = Overfitting()
        assert not any(watch.look(record) for record in case)
