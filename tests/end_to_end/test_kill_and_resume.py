"""A run that is killed or interrupted and then resumed ends as one that was left alone, to the bit."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.catalog import load
from datasets.store import ImageStore
from searcher.training.checkpoint import load_checkpoint
from searcher.training.interrupt import Interrupt, Stopped
from searcher.training.loop import SearchConfig, config_types, search
from searcher.training.run_folder import RunFolder, read_config
from tests.end_to_end.conftest import command, enas, environment


def metrics(stage: Path) -> list[dict[str, Any]]:
    """The records of a stage without what depends on the clock."""
    records = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "step_ms"} for record in records]


def assert_equal_states(first: Any, second: Any, place: str = "") -> None:
    """Equal checkpoints, tensors to the bit, whatever the clock says."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            if key not in ("seconds", "metrics_position"):
                assert_equal_states(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, list):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal_states(a, b, f"{place}/{i}")
    else:
        assert first == second, place


def assert_equal_stages(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    assert_equal_states(load_checkpoint(first / "checkpoint.pt"), load_checkpoint(second / "checkpoint.pt"))


def run_and_kill(arguments: list[str | Path], stage: Path, *, after_epochs: int, with_signal: int) -> int:
    """Start a command, send it a signal once its metrics have so many lines, and give its exit status."""
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    path = stage / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < after_epochs:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(with_signal)
    process.communicate(timeout=60)
    return process.returncode


def test_kill_9_in_search_and_retraining(tmp_path: Path, search_config: Path, retrain_config: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    enas("search", "--config", search_config, "--run", whole)
    arguments: list[str | Path] = ["search", "--config", search_config, "--run", killed]
    assert run_and_kill(arguments, killed / "search", after_epochs=1, with_signal=signal.SIGKILL) == -signal.SIGKILL
    assert not (killed / "spec.json").exists()
    enas(*arguments, "--resume")
    assert (killed / "spec.json").read_bytes() == (whole / "spec.json").read_bytes()
    assert_equal_stages(killed / "search", whole / "search")

    enas("retrain", whole, "--config", retrain_config)
    arguments = ["retrain", killed, "--config", retrain_config]
    assert run_and_kill(arguments, killed / "retrain", after_epochs=1, with_signal=signal.SIGKILL) == -signal.SIGKILL
    enas(*arguments, "--resume")
    assert_equal_stages(killed / "retrain", whole / "retrain")
    best = [load_checkpoint(run / "retrain" / "best.pt") for run in (killed, whole)]
    assert_equal_states(*best)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, search_config: Path, with_signal: int
) -> None:
    run = tmp_path / "run"
    arguments: list[str | Path] = ["search", "--config", search_config, "--run", run]
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True)
    path = run / "search" / "metrics.jsonl"
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(with_signal)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors.splitlines()[-1]
    assert (run / "search" / "checkpoint.pt").exists()


class StopAfter(Interrupt):
    """Asks to stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self._looks -= 1
        return self._looks < 0


def test_a_search_stopped_at_any_step_goes_on_exactly(tmp_path: Path, search_config: Path, store_path: Path) -> None:
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    store = load(str(store_path))
    assert isinstance(store, ImageStore)

    def run(path: Path, looks: int) -> None:
        folder = RunFolder.open(path / "search", config, resume=True, force=False, again="")
        search(config, store=store, folder=folder, device=torch.device("cpu"), interrupt=StopAfter(looks))

    run(tmp_path / "whole", 10_000)
    # An epoch has six steps of shared weights and two of the policy: the stops fall into both, and into derivation.
    stops = 0
    while stops < 30:
        try:
            run(tmp_path / "stopped", 3 + stops // 4)  # derivation starts anew, so it needs longer turns
            break
        except Stopped:
            stops += 1
    assert stops > 5
    assert (tmp_path / "stopped/spec.json").read_bytes() == (tmp_path / "whole/spec.json").read_bytes()
    assert_equal_stages(tmp_path / "stopped/search", tmp_path / "whole/search")
