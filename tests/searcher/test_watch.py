"""A run followed: what is said of each stage, from the files that a recorded run has left, at times that are given."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.document import DocumentError
from searcher.watch import Watcher

ROOT = Path(__file__).parents[2]
START = 1_000_000.0
# Of the default job's search, seed 0.
SEARCH = [
    {"epoch": 1, "loss": 2.40164, "train_accuracy": 0.148103},
    {"epoch": 2, "loss": 1.95131, "train_accuracy": 0.315737, "reward": 0.119383, "random_reward": 0.0333564},
    {"epoch": 3, "loss": 1.39818, "train_accuracy": 0.466183, "reward": 0.387271, "random_reward": 0.206056},
]
RETRAIN = [
    {"epoch": 1, "train_accuracy": 0.5, "valid_accuracy": 0.782},
    {"epoch": 2, "train_accuracy": 0.6, "valid_accuracy": 0.81},
    {"epoch": 3, "train_accuracy": 0.7, "valid_accuracy": 0.805},
]


def write(path: Path, text: str, *, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def record(
    folder: Path, records: Sequence[Mapping[str, Any]], *, epochs: int, epoch_s: float = 60, starts: int = 1
) -> None:
    """A stage that began at START and takes `epoch_s` an epoch. starts: how often it was begun or gone on with."""
    write(folder / "config.toml", f'space = "stages"\nnum_epochs = {epochs}\n', at=START)
    text = "".join(json.dumps(entry) + "\n" for entry in records)
    write(folder / "metrics.jsonl", text, at=START + epoch_s * len(records))
    for number in range(starts):
        write(folder / "tensorboard" / f"events.out.{number}", "", at=START)


def said(run: Path, *, after: float) -> list[str]:
    return [str(line) for line in Watcher(run).lines(now=START + after)]


def test_a_search_says_its_epoch_reward_against_random_accuracy_and_time_left(tmp_path: Path) -> None:
    record(tmp_path / "search", SEARCH, epochs=5)
    assert said(tmp_path, after=200) == [
        "search        epoch 3 of 5, reward 38.7 % (random 20.6 %), train accuracy 46.6 %, 1 min 40 s left"
    ]


def test_a_search_without_an_epoch_yet_promises_nothing(tmp_path: Path) -> None:
    record(tmp_path / "search", [], epochs=5)
    assert said(tmp_path, after=10) == ["search        epoch 0 of 5"]


def test_a_retraining_names_its_best_epoch(tmp_path: Path) -> None:
    record(tmp_path / "retrain", RETRAIN, epochs=8)
    assert said(tmp_path, after=180) == [
        "retrain       epoch 3 of 8, train accuracy 70.0 %, valid accuracy 80.5 %, best 81.0 % in epoch 2, "
        "5 min 0 s left"
    ]


def test_the_best_perplexity_is_the_least(tmp_path: Path) -> None:
    write(tmp_path / "search" / "config.toml", 'space = "recurrent"\n', at=START)
    write(tmp_path / "search" / "summary.json", '{"reward": 0.6}', at=START)
    record(tmp_path / "retrain", [{"epoch": n, "valid_perplexity": p} for n, p in ((1, 90.0), (2, 99.0))], epochs=3)
    assert "valid perplexity 99.00, best 90.00 in epoch 1" in said(tmp_path, after=120)[-1]


def verified(run: Path, *, weights: str, finished: bool = True, passed: bool = True) -> None:
    """The record of an export of some weights, in a run that has retrained `weights`."""
    write(run / "retrain" / "best.pt", "weights", at=START)
    digest = hashlib.sha256(weights.encode()).hexdigest()
    document = {"passed": passed, "weights_sha256": digest, "retraining_finished": finished}
    write(run / "verification.json", json.dumps(document), at=START)


def test_a_run_that_was_gone_on_with_is_timed_by_what_is_seen(tmp_path: Path) -> None:
    """The night between is no part of an epoch."""
    record(tmp_path / "retrain", RETRAIN[:1], epochs=4, epoch_s=30_000, starts=2)
    watcher = Watcher(tmp_path)
    (first,) = watcher.lines(now=START + 30_000)
    assert not first.time
    record(tmp_path / "retrain", RETRAIN[:2], epochs=4, epoch_s=30_050 / 2, starts=2)
    (second,) = watcher.lines(now=START + 30_060)
    assert second.time == "1 min 30 s left"


def test_a_stage_that_seems_stopped_says_so(tmp_path: Path) -> None:
    record(tmp_path / "search", SEARCH, epochs=5)
    (line,) = said(tmp_path, after=180 + 7200)
    assert line.endswith("nothing new for 2 h 0 min: if it was stopped, --resume goes on with it")


def test_finished_stages_say_what_they_came_to_and_the_model_ends_it(tmp_path: Path) -> None:
    record(tmp_path / "search", SEARCH, epochs=3)
    write(tmp_path / "search" / "summary.json", '{"reward": 0.704, "seconds": 97.2}', at=START)
    write(tmp_path / "spec.json", '{"provenance": {"derivation": {"chosen": "random 3"}}}', at=START)
    derived = '{"chosen": "random 3", "candidates": 9, "seconds": 546}'
    write(tmp_path / "derivation" / "summary.json", derived, at=START)
    record(tmp_path / "retrain", RETRAIN, epochs=3)
    retrained = '{"test_accuracy": 0.9045, "valid_accuracy": 0.907, "seconds": 268}'
    write(tmp_path / "retrain" / "summary.json", retrained, at=START + 200)
    # Times say nothing: those of a copy are all alike, or in any order.
    write(tmp_path / "model.onnx", "x" * 2000, at=START)
    verified(tmp_path, weights="earlier weights")
    assert not Watcher(tmp_path).is_finished
    verified(tmp_path, weights="weights", finished=False)
    assert not Watcher(tmp_path).is_finished
    verified(tmp_path, weights="weights", passed=False)
    assert not Watcher(tmp_path).is_finished
    verified(tmp_path, weights="weights")
    assert Watcher(tmp_path).is_finished
    (tmp_path / "retrain" / "best.pt").unlink()  # not copied, or deleted for its size
    assert Watcher(tmp_path).is_finished
    assert said(tmp_path, after=400) == [
        "search        done in 1 min 37 s: reward 70.4 %",
        "derive        done in 9 min 6 s: random 3, of 9 candidates",
        "retrain       done in 4 min 28 s: test accuracy 90.45 %, valid accuracy 90.70 %",
        "export        model.onnx, 2 kB",
    ]


def test_a_derivation_counts_the_trainings_of_its_rung(tmp_path: Path) -> None:
    folder = tmp_path / "derivation"
    write(folder / "config.toml", "rung_epochs = [2, 4]\n", at=START)
    assert said(tmp_path, after=0) == ["derive        choosing candidates"]
    for name in ("a", "b"):
        write(folder / "rung-1" / name / "config.toml", "", at=START)
    write(folder / "rung-1" / "a" / "summary.json", "{}", at=START)
    assert said(tmp_path, after=0) == ["derive        rung 1 of 2, trainings finished: 1"]


def test_a_derivation_whose_choice_is_not_the_runs_is_gone_on_with_not_begun_anew(tmp_path: Path) -> None:
    write(tmp_path / "spec.json", "{}", at=START)  # as a search that began anew leaves it, or a user
    write(tmp_path / "derivation" / "summary.json", '{"chosen": "random 3"}', at=START)
    command = f"`enas derive {tmp_path} --resume` puts it back, or says why not"
    assert said(tmp_path, after=0) == [f"derive        done, but spec.json is not its choice: {command}"]


def test_a_folder_without_a_run_is_refused_and_an_empty_one_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no such run directory"):
        Watcher(tmp_path / "absent")
    assert said(tmp_path, after=0)[0].split()[1:4] == ["nothing", "has", "begun"]


def test_the_command_writes_a_line_for_each_change_and_ends_with_the_model(tmp_path: Path) -> None:
    record(tmp_path / "retrain", RETRAIN[:1], epochs=2)
    command = [sys.executable, str(ROOT / "enas.py"), "watch", str(tmp_path), "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "epoch 1 of 2" in process.stdout.readline()
        write(tmp_path / "retrain" / "summary.json", '{"test_accuracy": 0.9}', at=START)
        write(tmp_path / "model.onnx", "x", at=START + 1)
        verified(tmp_path, weights="weights")
        rest = process.stdout.read().splitlines()
        assert process.wait(20) == 0
    assert rest == ["retrain       done: test accuracy 90.00 %", "export        model.onnx, 0 kB"]
