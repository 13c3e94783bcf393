"""`enas rank` on tiny searches: what it measures, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import numpy as np
import psutil
import pytest

from exporter.judging.agreement import mean_tau, seed_tau
from exporter.retraining import trainings
from searcher.running.executors import ExecutorError
from searcher.training.weights_trainer import DivergedError
from tests.end_to_end.comparing import assert_equal_stages
from tests.end_to_end.conftest import ROOT, Tiny, command, environment, here, start
from tests.forked import Forked
from tests.searcher.running.test_jobs import until

OPTIONS = ("--count", "3", "--epochs", "1", "--device", "cpu", "--jobs", "1")


def workers_of(process: int) -> list[int]:
    """The processes that do another's jobs."""
    children = psutil.Process(process).children()
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def searched(run: Path, tmp_path: Path) -> Path:
    """A copy of the run to write into."""
    return shutil.copytree(run, tmp_path / "run")


def test_a_ranking_compares_shared_weights_with_training_alone(searched: Path, tiny: Tiny) -> None:
    done = here("rank", searched, *OPTIONS)
    found = json.loads((searched / "ranking.json").read_text())
    metric, sign = ("perplexity", -1) if tiny.space == "recurrent" else ("accuracy", 1)
    assert found["metric"] == metric
    assert len(set(found["architectures"])) == 3
    by_metric, by_loss = found["judgements"]
    assert [by_metric["measure"], by_loss["measure"]] == [metric, "training loss"]
    shared = np.array(found["predictors"][0]["scores"])
    for judged, direction in ((by_metric, sign), (by_loss, -1)):
        trained = direction * np.array(judged["alone"])
        assert judged["agreements"][0]["tau"] == mean_tau(shared, trained)
        assert judged["seed_tau"] == seed_tau(trained)
    names = [one["name"] for one in found["predictors"]]
    assert names == ["shared weights", "parameters", "multiply-adds", *(["latency"] if metric == "accuracy" else [])]
    lines = done.stdout.splitlines()
    # The result alone: how it goes is told on stderr.
    assert lines[0].startswith(f"by {metric} ")
    assert "Kendall's tau" in lines[-1]
    for number in range(3):
        for row in range(2):
            summary = json.loads((searched / f"ranking/{number:02d}/seed-{row}/summary.json").read_text())
            assert summary["valid_score"] == by_metric["alone"][row][number]
            assert summary["train_loss"] == by_loss["alone"][row][number]
            assert f"test_{metric}" not in summary
    here("report", searched)
    assert "Kendall" in (searched / "report.html").read_text()
    earlier = {key: value for key, value in found.items() if key != "judgements"}
    (searched / "ranking.json").write_text(json.dumps(earlier))
    here("report", searched)
    assert "an earlier version" in (searched / "report.html").read_text()
    found["spec_sha256"] = "0" * 64  # of another search
    (searched / "ranking.json").write_text(json.dumps(found))
    here("report", searched)
    assert "Kendall" not in (searched / "report.html").read_text()


def test_rungs_foretell_too(searched: Path, tiny: Tiny) -> None:
    options = ("--count", "3", "--seeds", "1", "--epochs", "2", "--rung", "1", "--device", "cpu", "--jobs", "1")
    here("rank", searched, *options)
    found = json.loads((searched / "ranking.json").read_text())
    rung = found["predictors"][1]
    assert rung["name"] == "1 epoch of training"
    assert sorted(rung["scores"]) == [-2, -1, 0]
    summaries = [
        json.loads((searched / f"ranking/{place:02d}/epochs-1/summary.json").read_text()) for place in range(3)
    ]
    first = summaries[rung["scores"].index(0)]
    assert first["train_loss"] == min(one["train_loss"] for one in summaries) or first["valid_score"] == (
        min if tiny.space == "recurrent" else max
    )(one["valid_score"] for one in summaries)
    with (searched / "ranking/00/epochs-1/config.toml").open("rb") as file:
        seeds = {tomllib.load(file)["seed"]}
    with (searched / "ranking/00/seed-0/config.toml").open("rb") as file:
        alone = tomllib.load(file)
        seeds.add(alone["seed"])
    assert len(seeds) == 2
    assert (alone["num_epochs"], alone["min_steps"]) == (2, 0)  # passes over train, as the user says
    kept = (searched / "ranking/00/epochs-1/summary.json").stat().st_mtime_ns
    done = here("rank", searched, *options, "--resume")
    assert "1 epoch of training" in done.stdout
    assert (searched / "ranking/00/epochs-1/summary.json").stat().st_mtime_ns == kept
    here("report", searched)
    assert "1 epoch of training" in (searched / "report.html").read_text()
    refused = here("rank", searched, *options, "--rung", "2", "--resume", check=False)
    # What an earlier pool has left in folders of other names is nobody's.
    shutil.copytree(searched / "ranking/01/epochs-1", searched / "ranking/00/epochs-5")
    here("rank", searched, *options, "--resume")
    assert "--rung 2 is no shorter than the trainings that it foretells, of 2" in str(refused.exception)


def without_latency(run: Path) -> dict[str, Any]:
    """The ranking without what is measured anew."""
    found = json.loads((run / "ranking.json").read_text())
    assert found["predictors"].pop()["name"] == "latency"
    for judged in found["judgements"]:
        judged["agreements"].pop()
    return found


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_a_ranking_goes_on_with_what_is_trained(searched: Path) -> None:
    here("rank", searched, *OPTIONS)
    whole = without_latency(searched)
    kept = (searched / "ranking/00/seed-0/summary.json").stat().st_mtime_ns
    (searched / "ranking/02/seed-1/summary.json").unlink()
    assert here("rank", searched, *OPTIONS, check=False).exit_code != 0
    other = here("rank", searched, *OPTIONS, "--count", "4", "--resume", check=False)
    assert "ranking holds trainings of another pool, as another --count, " in str(other.exception)
    here("rank", searched, *OPTIONS, "--resume")
    assert without_latency(searched) == whole
    assert (searched / "ranking/00/seed-0/summary.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_an_architecture_that_diverges_comes_last(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, trained = trainings.train, 0

    def train(*arguments: Any, **options: Any) -> Any:
        nonlocal trained
        trained += 1
        if trained == 2:
            raise DivergedError("the loss is no longer a number")
        return original(*arguments, **options)

    monkeypatch.setattr(trainings, "train", train)
    done = here("rank", searched, *OPTIONS)
    assert "with its own it diverges" in done.stderr
    found = json.loads((searched / "ranking.json").read_text())
    shared = np.array(found["predictors"][0]["scores"])
    for judged, sign in zip(found["judgements"], (1, -1), strict=True):
        assert [[value is None for value in row] for row in judged["alone"]] == [[False, True, False], [False] * 3]
        worth = [[-math.inf if value is None else sign * value for value in row] for row in judged["alone"]]
        assert judged["agreements"][0]["tau"] == mean_tau(shared, np.array(worth))
    here("rank", searched, *OPTIONS, "--resume")
    here("report", searched)


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_jobs_side_by_side_killed_one_by_one_and_together_end_as_one_after_the_other(
    searched: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(searched, tmp_path / "other")
    options = ("--count", "3", "--seeds", "1", "--epochs", "2", "--device", "cpu", "--checkpoint-minutes", "0")
    here("rank", searched, *options, "--jobs", "1")

    def begin(*more: str) -> Forked:
        return start("rank", other, *options, "--jobs", "2", *more)

    def kill_at_work(process: Forked, victim: Callable[[], int]) -> tuple[str, str]:
        number = len(list(other.glob("ranking/0?/seed-?/checkpoint.pt")))
        until(lambda: process.poll() is not None or len(list(other.glob("ranking/0?/seed-?/checkpoint.pt"))) > number)
        assert process.poll() is None, process.said
        os.kill(victim(), signal.SIGKILL)
        return process.communicate(timeout=120)

    process = begin()
    _, errors = kill_at_work(process, lambda: workers_of(process.pid)[0])
    assert process.returncode == 2
    assert "1 of 3 have failed; --resume goes on with them" in errors
    assert "its process has died" in errors

    shutil.rmtree(other / "ranking")
    process = begin()
    kill_at_work(process, lambda: process.pid)
    assert not (other / "ranking.json").exists()

    process = begin("--resume")
    number = len(list(other.glob("ranking/0?/seed-?/summary.json")))
    until(lambda: process.poll() is not None or len(list(other.glob("ranking/0?/seed-?/summary.json"))) > number)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (130, 0), errors  # the last may have ended just then

    process = begin("--resume")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert without_latency(other) == without_latency(searched)
    for name in ("00", "01", "02"):
        assert_equal_stages(other / "ranking" / name / "seed-0", searched / "ranking" / name / "seed-0")


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_a_clusters_workers_train_to_the_same_end_and_one_may_die(searched: Path, tmp_path: Path) -> None:
    other = shutil.copytree(searched, tmp_path / "other")
    options = ("--count", "3", "--seeds", "1", "--epochs", "15", "--device", "cpu", "--checkpoint-minutes", "0")
    here("rank", searched, *options, "--jobs", "1")
    address = f"tcp://127.0.0.1:{free_port()}"
    programs = [
        ["scheduler", "--host", address, "--no-dashboard"],
        *2 * [["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]],
    ]
    cluster = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL, env=environment()
        )
        for arguments in programs
    ]
    try:
        process = subprocess.Popen(
            command("rank", other, *options, "--executor", f"dask:{address}"),
            stdout=PIPE,
            stderr=PIPE,
            text=True,
        )
        until(lambda: process.poll() is not None or len(list(other.glob("ranking/0?/seed-?/checkpoint.pt"))) == 2)
        assert process.poll() is None, process.communicate()[1]
        cluster[1].kill()
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    finally:
        for program in cluster:
            program.kill()
            program.wait()
    assert without_latency(other) == without_latency(searched)
    for name in ("00", "01", "02"):
        assert_equal_stages(other / "ranking" / name / "seed-0", searched / "ranking" / name / "seed-0")


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("slurm:here", "expected dask: and a scheduler's address"),
        ("dask:tcp://127.0.0.1:1", "no dask scheduler answers there"),
    ],
)
def test_a_cluster_that_is_not_there_is_said(searched: Path, executor: str, message: str) -> None:
    done = here("rank", searched, "--executor", executor, check=False)
    assert isinstance(done.exception, ExecutorError)
    assert message in str(done.exception)


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_what_cannot_be_ranked_is_said(searched: Path) -> None:
    (searched / "search/summary.json").unlink()
    done = here("rank", searched, *OPTIONS, check=False)
    assert "no search is finished there" in str(done.exception)
