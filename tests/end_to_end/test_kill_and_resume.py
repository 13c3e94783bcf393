"""A run that is killed or interrupted and then resumed ends as one that was left alone, to the bit."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from exporter.retrain import RetrainConfig, retrain
from exporter.retrain import config_types as retrain_types
from searcher.arch.spec import Spec
from searcher.training.checkpoint import load_checkpoint
from searcher.training.epoch import DivergedError
from searcher.training.interrupt import Interrupt, Stopped
from searcher.training.learners import load_store, task_of
from searcher.training.loop import Search, search
from searcher.training.run_folder import RunFolder, read_config
from searcher.training.search_config import SearchConfig, config_types
from tests.end_to_end.conftest import CLASSES, Tiny, command, enas, environment, here, tiny_images


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
        assert first == second or first != first, place  # nan, the baseline before there are rewards, equals nothing


def assert_equal_stages(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    assert_equal_states(load_checkpoint(first / "checkpoint.pt"), load_checkpoint(second / "checkpoint.pt"))


def run_and_kill(arguments: list[str | Path], stage: Path) -> None:
    """Start a command and kill it once its first checkpoint stands and its second epoch is in the metrics."""
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    path = stage / "metrics.jsonl"
    while not (stage / "checkpoint.pt").exists() or path.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(stage / "checkpoint.pt")["epoch"] >= 1


def test_a_run_killed_in_every_stage_gives_the_same_spec_weights_and_model(
    tmp_path: Path, tiny: Tiny, run: Path
) -> None:
    killed = tmp_path / "killed"
    run_and_kill(tiny.search(killed), killed / "search")
    assert not (killed / "spec.json").exists()
    enas(*tiny.search(killed), "--resume")
    assert (killed / "spec.json").read_bytes() == (run / "spec.json").read_bytes()
    assert_equal_stages(killed / "search", run / "search")

    stages = ["retrain", *(["retrain-lstm"] if tiny.space == "recurrent" else [])]
    for stage in stages:
        run_and_kill([*tiny.retrain(killed), "--resume"], killed / stage)
        # The LSTM is trained beside the cell, and may be finished by the time the other is killed.
        assert stage != "retrain" or not (killed / stage / "summary.json").exists()
    enas(*tiny.retrain(killed), "--resume")
    for stage in stages:
        assert_equal_stages(killed / stage, run / stage)
        best = [load_checkpoint(path / stage / "best.pt") for path in (killed, run)]
        assert_equal_states(*best)

    here("export", killed)
    for model in run.glob("model*.onnx"):
        assert (killed / model.name).read_bytes() == model.read_bytes()


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


def stop_again_and_again(run: Callable[[Path, int], object], path: Path, *, first_turn: int) -> int:
    """Run in turns that grow by a look every few stops, until one ends by itself; gives the number of stops."""
    for stops in range(100):
        try:
            run(path, first_turn + stops // 4)
            return stops
        except Stopped:
            continue
    raise AssertionError("the run never ended")


def with_options(config: SearchConfig, name: str, **changes: Any) -> SearchConfig:
    """The tiny search's configuration, changed."""
    if name == "random":
        return replace(config, policy=replace(config.policy, kind="random"), **changes)
    if name == "moving average":
        changes |= {"reinforce": replace(config.reinforce, baseline="moving_average"), "policy_samples": 1}
    return replace(config, **changes)


@pytest.mark.parametrize(
    ("tiny", "name", "changes"),
    [
        ("micro", "default", {}),
        ("micro", "random", {"policy_start_epoch": 1}),
        ("micro", "moving average", {"architectures_per_step": 2, "control_samples": 0}),
        ("macro", "default", {}),
        ("stages", "default", {}),
        ("recurrent", "default", {}),
        ("recurrent", "moving average", {"architectures_per_step": 2, "control_samples": 0}),
    ],
    indirect=["tiny"],
)
def test_a_search_stopped_at_any_step_goes_on_exactly(
    tmp_path: Path, tiny: Tiny, name: str, changes: dict[str, Any]
) -> None:
    config = with_options(
        read_config(tiny.search_config, SearchConfig, types=config_types(tiny.space)), name, **changes
    )
    store = load_store(config.dataset, space=tiny.space)

    def run(path: Path, looks: int) -> None:
        folder = RunFolder.open(path / "search", config, resume=True, force=False, again="")
        search(config, store=store, folder=folder, device=torch.device("cpu"), interrupt=StopAfter(looks))

    run(tmp_path / "whole", 10_000)
    # An epoch has three steps or more of shared weights and two of the policy: the stops fall into both, and into
    # derivation.
    assert stop_again_and_again(run, tmp_path / "stopped", first_turn=3) > 5
    assert (tmp_path / "stopped/spec.json").read_bytes() == (tmp_path / "whole/spec.json").read_bytes()
    assert_equal_stages(tmp_path / "stopped/search", tmp_path / "whole/search")


@pytest.mark.parametrize(
    ("tiny", "model"),
    [("micro", "spec"), ("macro", "spec"), ("recurrent", "spec"), ("recurrent", "lstm")],
    indirect=["tiny"],
)
def test_a_retraining_stopped_at_any_step_goes_on_exactly(tmp_path: Path, tiny: Tiny, model: Any) -> None:
    store = load_store(str(tiny.store_path), space=tiny.space)
    searched = read_config(tiny.search_config, SearchConfig, types=config_types(tiny.space))
    architecture = searched.search_space.random(random.Random(0))
    spec = Spec(tiny.space, architecture, searched.final_network, task_of(store, dataset=searched.dataset))
    config = replace(read_config(tiny.retrain_config, RetrainConfig, types=retrain_types(tiny.space)), model=model)

    def run(path: Path, looks: int) -> None:
        folder = RunFolder.open(path / "retrain", config, resume=True, force=False, again="")
        retrain(spec, config, store=store, folder=folder, device=torch.device("cpu"), interrupt=StopAfter(looks))

    run(tmp_path / "whole", 10_000)
    assert stop_again_and_again(run, tmp_path / "stopped", first_turn=4) >= 3
    assert_equal_stages(tmp_path / "stopped/retrain", tmp_path / "whole/retrain")
    best = [load_checkpoint(tmp_path / name / "retrain" / "best.pt") for name in ("whole", "stopped")]
    assert_equal_states(*best)
    if tiny.space == "recurrent":
        # The stops fell before and into the averaging, which began within the run.
        assert load_checkpoint(tmp_path / "whole/retrain/checkpoint.pt")["average"]


def test_a_diverged_run_never_overwrites_its_checkpoint(tmp_path: Path, search_config: Path, store_path: Path) -> None:
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    store = load_images(str(store_path))
    run = Search(config, store=store, device=torch.device("cpu"))
    run.weights.totals.sums[0] = math.nan
    with pytest.raises(DivergedError, match="the last checkpoint is kept"):
        run.state()


def test_other_images_under_the_same_name_are_not_gone_on_with(
    tmp_path: Path, search_config: Path, store_path: Path
) -> None:
    store = tmp_path / "mine.h5"
    store.write_bytes(store_path.read_bytes())
    arguments: list[str | Path] = ["search", "--config", search_config, "--dataset", store, "--run", tmp_path / "run"]
    enas(*arguments)
    splits = {split: tiny_images(count, 9) for split, count in (("train", 96), ("valid", 33), ("test", 41))}
    write_image_store(store, name="shapes", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")
    done = enas(*arguments, "--resume", check=False)
    assert done.returncode == 2
    assert "was made with another configuration (dataset_sha256 was" in done.stderr


def test_two_processes_cannot_share_a_stage(tmp_path: Path, search_config: Path) -> None:
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    path = tmp_path / "run" / "search"
    held = RunFolder.open(path, config, resume=False, force=False, again="")
    done = enas("search", "--config", search_config, "--run", tmp_path / "run", "--resume", check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {path} is in use by another process\n"
    assert held.begun


def test_what_a_killed_write_leaves_does_not_lock_the_folder(tmp_path: Path, search_config: Path) -> None:
    path = tmp_path / "run" / "search"
    path.mkdir(parents=True)
    (path / ".config.toml.0a1b2c3d.tmp").write_text("half")
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    RunFolder.open(path, config, resume=False, force=False, again="")
    assert sorted(p.name for p in path.iterdir()) == [".lock", "config.toml"]


def test_an_unfinished_search_is_not_retrained(tmp_path: Path, search_config: Path) -> None:
    run = tmp_path / "run"
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    RunFolder.open(run / "search", config, resume=False, force=False, again="")
    (run / "spec.json").write_text("{}")  # an earlier search's
    done = enas("retrain", run, check=False)
    assert done.returncode == 2
    assert "the search is not finished; go on with it" in done.stderr
