"""What a line tells of the time that a long run still takes."""

from __future__ import annotations

import pytest

from searcher.running.progress import Progress


@pytest.mark.parametrize(
    ("seconds_a_step", "expected"),
    [(0.5, ", 4 s left"), (30.0, ", 4 min left"), (1800.0, ", 4.0 h left"), (0.0, ", 0 s left")],
)
def test_time_left_follows_the_pace_since_the_start(
    monkeypatch: pytest.MonkeyPatch, seconds_a_step: float, expected: str
) -> None:
    now = [100.0]
    monkeypatch.setattr("searcher.running.progress.time.perf_counter", lambda: now[0])
    progress = Progress("train", total=20, done=10)
    assert progress.time_left == ""  # no step yet, so no pace
    for _ in range(2):
        now[0] += seconds_a_step
        progress.step()
    assert progress.time_left == expected
    for _ in range(8):
        progress.step()
    assert progress.time_left == ""


def test_every_tenth_that_is_reached_tells_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("searcher.running.progress.time.perf_counter", lambda: now[0])
    progress = Progress("rank", total=20, done=4, unit="epoch")
    for done in (5, 8, 20):
        now[0] += 300.0
        progress.reach(done, jobs="1/2")
    assert capsys.readouterr().err.splitlines() == [
        "rank: 5 of 20 epochs, jobs 1/2, 75 min left",
        "rank: 8 of 20 epochs, jobs 1/2, 30 min left",
        "rank: 20 of 20 epochs, jobs 1/2",
    ]


def test_a_run_that_starts_over_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("searcher.running.progress.time.perf_counter", lambda: now[0])
    progress = Progress("train", total=5, done=3)
    now[0] = 1000.0
    progress.start_over()
    assert progress.time_left == ""
    now[0] = 1002.0
    progress.step()
    assert progress.time_left == ", 8 s left"
