"""Long runs: two checkpoints, one of them whole whatever happens; a timer; a limit on the time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searcher.running.checkpoint import CheckpointError, load_checkpoint
from searcher.running.interrupt import Interrupt, Stopped, catch_signals
from searcher.running.metrics import read_metrics
from searcher.running.pacing import Checkpointer, Pace
from searcher.running.run_folder import Opening, RunFolder
from searcher.training.optimizers.optimizer import SgdConfig

CONFIG = SgdConfig(learning_rate=0.1)


def open_folder(path: Path) -> RunFolder:
    return RunFolder.open(path / "search", CONFIG, Opening(resume=True))


def three_epochs(path: Path) -> RunFolder:
    folder = open_folder(path)
    folder.restore()
    for epoch in (1, 2, 3):
        folder.append({"epoch": epoch})
        folder.save({"epoch": epoch})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return three_epochs(tmp_path)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def epochs_kept(folder: RunFolder) -> list[int]:
    return [load_checkpoint(path)["epoch"] for path in (folder.previous_path, folder.checkpoint_path)]


def test_the_last_two_checkpoints_are_kept(folder: RunFolder) -> None:
    assert epochs_kept(folder) == [2, 3]
    assert sorted(p.name for p in folder.path.glob("*.pt")) == ["checkpoint-previous.pt", "checkpoint.pt"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_with_a_note(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder.checkpoint_path)
    state = folder.restore()
    assert state is not None
    assert state["epoch"] == 2
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith(f"{folder.checkpoint_path}: damaged, or not a checkpoint (")
    assert note.endswith("): going on with the checkpoint before it")
    assert read_metrics(folder.path / "metrics.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    folder.append({"epoch": 3})
    folder.save({"epoch": 3})
    assert epochs_kept(folder) == [2, 3]


def test_a_kill_between_the_two_renames_leaves_a_checkpoint(folder: RunFolder) -> None:
    folder.checkpoint_path.rename(folder.previous_path)
    state = folder.restore()
    assert state is not None
    assert state["epoch"] == 3


def test_a_stages_time_begins_when_it_is_restored_not_when_it_is_opened(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    before = time.perf_counter()
    folder.restore()
    assert folder.seconds < time.perf_counter() - before


@pytest.mark.parametrize("has_previous", [True, False])
def test_where_no_checkpoint_is_whole_one_line_says_so_and_what_to_do(folder: RunFolder, has_previous: bool) -> None:
    damage(folder.checkpoint_path)
    if has_previous:
        damage(folder.previous_path)
    else:
        folder.previous_path.unlink()
    with pytest.raises(CheckpointError) as refused:
        folder.restore()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{folder.checkpoint_path}: damaged, or not a checkpoint (")
    assert line.endswith("); start anew with --force")


def test_force_leaves_no_older_checkpoint_to_go_on_with(tmp_path: Path) -> None:
    three_epochs(tmp_path)  # whose lock goes with it
    again = RunFolder.open(tmp_path / "search", CONFIG, Opening(force=True))
    assert again.restore() is None


class Clock:
    def __init__(self) -> None:
        self.seconds = 1e6

    def __call__(self) -> float:
        return self.seconds

    def pass_minutes(self, minutes: float) -> None:
        self.seconds += 60 * minutes


Start = Callable[..., Checkpointer]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def interrupt() -> Interrupt:
    return Interrupt()


@pytest.fixture
def start(tmp_path: Path, clock: Clock, interrupt: Interrupt) -> Start:
    """Make a checkpointer whose state counts the checkpoints."""

    def make(**pace: Any) -> Checkpointer:
        folder = open_folder(tmp_path)
        folder.restore()
        saved: list[None] = []

        def state() -> dict[str, Any]:
            saved.append(None)
            return {"epoch": 0, "number": len(saved)}

        return Checkpointer(state, folder=folder, interrupt=interrupt, pace=Pace(now=clock, **pace))

    return make


def num_saved(path: Path) -> int:
    checkpoint = path / "search" / "checkpoint.pt"
    return load_checkpoint(checkpoint)["number"] if checkpoint.exists() else 0


def test_a_checkpoint_is_written_every_so_many_minutes_within_an_epoch(
    start: Start, clock: Clock, tmp_path: Path
) -> None:
    checkpointer = start(checkpoint_minutes=10)
    seen = []
    for _ in range(9):
        clock.pass_minutes(4)
        checkpointer.between_steps()
        seen.append(num_saved(tmp_path))
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_the_minutes_count_from_an_epochs_end(start: Start, clock: Clock, tmp_path: Path) -> None:
    checkpointer = start(checkpoint_minutes=10)
    clock.pass_minutes(9)
    checkpointer.save()
    clock.pass_minutes(9)
    checkpointer.between_steps()
    assert num_saved(tmp_path) == 1


def test_a_run_stops_with_a_checkpoint_when_its_time_is_over(start: Start, clock: Clock, tmp_path: Path) -> None:
    checkpointer = start(deadline=clock() + 3600)
    for _ in range(5):
        clock.pass_minutes(11)
        checkpointer.between_steps()
    clock.pass_minutes(5)
    with pytest.raises(Stopped) as stopped:
        checkpointer.between_steps()
    assert stopped.value.out_of_time
    assert num_saved(tmp_path) == 6


def test_who_asks_to_stop_is_not_told_that_time_is_over(
    start: Start, clock: Clock, interrupt: Interrupt, tmp_path: Path
) -> None:
    checkpointer = start(deadline=clock() + 3600)
    interrupt.requested = True
    with pytest.raises(Stopped) as stopped:
        checkpointer.between_steps()
    assert not stopped.value.out_of_time
    assert num_saved(tmp_path) == 1


def test_a_second_sigterm_is_still_a_request_and_a_second_ctrl_c_is_not() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background lacks
    with catch_signals() as interrupt:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
