"""A run that is killed and then resumed ends as one that was left alone, to the bit."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import pytest
import torch

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from searcher.running.checkpoint import load_checkpoint
from searcher.running.run_folder import RunFolder, read_config
from searcher.training.loop import Search
from searcher.training.search_config import SearchConfig, config_types
from searcher.training.weights_trainer import DivergedError
from tests.end_to_end.comparing import assert_equal_stages, assert_equal_states
from tests.end_to_end.conftest import CLASSES, Tiny, enas, here, start, tiny_images


def run_and_kill(arguments: list[str | Path], stage: Path) -> None:
    """Start a command and kill it once its first checkpoint stands and its second epoch is in the metrics."""
    process = start(*arguments)
    deadline = time.monotonic() + 120
    path = stage / "metrics.jsonl"
    while not (stage / "checkpoint.pt").exists() or path.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.said
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
    here(*tiny.search(killed), "--resume")
    assert (killed / "spec.json").read_bytes() == (run / "spec.json").read_bytes()
    assert_equal_stages(killed / "search", run / "search")

    stages = ["retrain", *(["retrain-lstm"] if tiny.space == "recurrent" else [])]
    for stage in stages:
        run_and_kill([*tiny.retrain(killed), "--resume"], killed / stage)
        # The LSTM is trained beside the cell, and may be finished by the time the other is killed.
        assert stage != "retrain" or not (killed / stage / "summary.json").exists()
    here(*tiny.retrain(killed), "--resume")
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
    process = start(*arguments)
    path = run / "search" / "metrics.jsonl"
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(with_signal)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors.splitlines()[-1]
    assert (run / "search" / "checkpoint.pt").exists()


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
    here(*arguments)
    splits = {split: tiny_images(count, 9) for split, count in (("train", 96), ("valid", 33), ("test", 41))}
    write_image_store(store, name="shapes", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")
    done = here(*arguments, "--resume", check=False)
    assert "was made with another configuration (dataset_sha256 was" in str(done.exception)


def test_resume_without_the_data_set_it_was_begun_with_does_not_advise_to_delete_the_run(
    tmp_path: Path, search_config: Path, store_path: Path
) -> None:
    store = tmp_path / "mine.h5"
    store.write_bytes(store_path.read_bytes())
    here("search", "--config", search_config, "--dataset", store, "--run", tmp_path / "run")
    done = here("search", "--config", search_config, "--run", tmp_path / "run", "--resume", check=False)
    assert "go on with the options that it was begun with and --resume" in str(done.exception)


def test_two_processes_cannot_share_a_stage(tmp_path: Path, search_config: Path) -> None:
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    path = tmp_path / "run" / "search"
    held = RunFolder.open(path, config)
    done = enas("search", "--config", search_config, "--run", tmp_path / "run", "--resume", check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {path} is in use by another process\n"
    assert held.begun


def test_what_a_killed_write_leaves_does_not_lock_the_folder(tmp_path: Path, search_config: Path) -> None:
    path = tmp_path / "run" / "search"
    path.mkdir(parents=True)
    (path / ".config.toml.0a1b2c3d.tmp").write_text("half")
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    RunFolder.open(path, config)
    assert sorted(p.name for p in path.iterdir()) == [".lock", "config.toml"]


def test_an_unfinished_search_is_not_retrained(tmp_path: Path, search_config: Path) -> None:
    run = tmp_path / "run"
    config = read_config(search_config, SearchConfig, types=config_types("micro"))
    RunFolder.open(run / "search", config)
    (run / "spec.json").write_text("{}")  # an earlier search's
    done = here("retrain", run, check=False)
    assert "the search is not finished; go on with it" in str(done.exception)
