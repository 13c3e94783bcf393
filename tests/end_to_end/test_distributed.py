"""Two processes train as one does, stop together, and know when one of them is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.retraining.config import RetrainConfig
from searcher.running.checkpoint import load_checkpoint
from searcher.running.distributed import ALONE, World
from searcher.running.metrics import read_metrics
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.search_config import SearchConfig
from tests import forked
from tests.end_to_end.conftest import here, recurrent_search, text_retraining
from tests.end_to_end.two_processes import (
    PLAIN,
    Joining,
    alone,
    collectives,
    environment,
    free_port,
    in_two_processes,
    joined_by_nccl,
    joined_on_one_gpu,
    retrained,
    retrained_on_cuda,
    together,
)
from tests.forked import Forked
from tests.searcher.norms import assert_close_in_norm

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(collectives, folder=tmp_path_factory.mktemp("collectives"))


def test_gradients_become_their_mean_where_any_rank_has_one(found: list[dict[str, Any]]) -> None:
    for outcome in found:
        everywhere, somewhere, nowhere = outcome["gradients"]
        assert torch.equal(everywhere, torch.full((1, 2), 1.5))
        assert torch.equal(somewhere, torch.full((1, 2), 1.5))  # a missing one counts as zero
        assert nowhere is None


def test_shares_are_put_together_in_order(found: list[dict[str, Any]]) -> None:
    for outcome in found:
        assert outcome["whole"].tolist() == list(range(7))
        assert outcome["whole of one"].tolist() == [1]
        assert outcome["sum"].tolist() == [2, 1]
        assert outcome["any"] == [False, True, True]


def test_what_the_first_rank_reads_all_get_and_where_it_fails_all_do(found: list[dict[str, Any]]) -> None:
    assert [outcome["rank"] for outcome in found] == [0, 1]
    assert [outcome["shared"] for outcome in found] == ["from 0", "from 0"]
    assert found[0]["failure"] == "OSError('no space left')"
    assert found[1]["failure"] == "DistributedError('process 1: process 0 has failed: no space left')"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_thing_is_in_one_share(size: int) -> None:
    for count in range(12):
        shares = [World(rank, size).part(count) for rank in range(size)]
        assert [i for share in shares for i in range(count)[share]] == list(range(count))
        lengths = [len(range(count)[share]) for share in shares]
        assert max(lengths) - min(lengths) <= 1


def test_a_world_of_one_gives_back_what_it_gets() -> None:
    values = torch.ones(3)
    assert ALONE.whole(values, 3) is values
    assert ALONE.sum(values) is values
    assert ALONE.stream == ()


@pytest.fixture(scope="module")
def search_settings(text_path: Path) -> SearchConfig:
    """Which learns within seconds, whatever the seed, from 2.3 nats to less than 1.5. No batch norm: its statistics are
    those of a rank's part of the batch, here of 8 streams, which costs 0.15 nats.
    """
    return replace(
        recurrent_search(),
        dataset=str(text_path),
        training=replace(PLAIN, weight_range=0.2),
        sgd=SgdConfig(learning_rate=5.0, final_learning_rate=0.5, momentum=0.0, clip_norm=0.25),
        precision="float32",
        num_epochs=8,
        batch_size=16,
        policy_start_epoch=0,
        policy_steps=2,
        policy_samples=3,
        control_samples=2,
        reward_batch_size=16,
    )


@pytest.fixture(scope="module")
def both(search_settings: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ranks 0 and 1 did together, and then what a process did alone."""
    plain: dict[str, Any] = {"training": PLAIN, "precision": "float32"}
    settings: RetrainConfig = replace(text_retraining("recurrent"), **plain, batch_size=16, num_epochs=3)
    folder = tmp_path_factory.mktemp("together")
    return [*in_two_processes(together, search_settings, settings, folder=folder), alone(search_settings, settings)]


def test_every_rank_has_its_own_architectures_and_all_have_the_same_weights_and_policy(
    both: list[dict[str, Any]],
) -> None:
    first, second, single = (outcome["search"] for outcome in both)
    assert first["architectures"] != second["architectures"]
    assert first["architectures"] == single["architectures"]
    for name in ("supernet", "policy"):
        assert torch.equal(first[name], second[name])
    assert first["rewards"] == second["rewards"]
    assert first["losses"] == second["losses"]


def test_ranks_with_the_same_architectures_take_the_steps_of_one_process(both: list[dict[str, Any]]) -> None:
    first, _, single = (outcome["same"] for outcome in both)
    for name in ("supernet", "policy"):
        torch.testing.assert_close(first[name], single[name], rtol=1e-4, atol=1e-5)
    assert first["losses"] == pytest.approx(single["losses"], rel=1e-4)


def test_the_loss_falls_as_with_two_architectures_a_step(both: list[dict[str, Any]]) -> None:
    first, _, single = (outcome["search"] for outcome in both)
    assert first["losses"][-1] < 1.6 < first["losses"][0]
    # The means of four seeds differ by 2 % at most, two seeds of one process by up to 6 %.
    ends = [sum(outcome["losses"][-3:]) / 3 for outcome in (first, single)]
    assert ends[0] == pytest.approx(ends[1], rel=0.1)


def test_retraining_in_two_processes_is_retraining_in_one(both: list[dict[str, Any]]) -> None:
    first, second, single = (outcome["retraining"] for outcome in both)
    assert torch.equal(first["network"], second["network"])
    torch.testing.assert_close(first["network"], single["network"], rtol=1e-4, atol=1e-5)
    assert first["scores"] == pytest.approx(single["scores"], rel=1e-4)


def test_a_replayed_network_averages_its_gradients_over_ranks(both: list[dict[str, Any]]) -> None:
    for outcome in both[:2]:
        assert torch.equal(outcome["replayed"]["network"], outcome["retraining"]["network"])


# --- on GPUs ----------------------------------------------------------------------------------------------------------

needs_two_gpus = pytest.mark.skipif("torch.cuda.device_count() < 2", reason="NCCL needs a GPU for each process, so two")
OF_TEXT: dict[str, Any] = {"training": PLAIN, "precision": "float32", "batch_size": 16, "num_epochs": 1}


@pytest.mark.gpu
@pytest.mark.parametrize(
    "joining", [joined_on_one_gpu, pytest.param(joined_by_nccl, marks=needs_two_gpus)], ids=["one GPU", "NCCL"]
)
def test_two_ranks_on_gpus_retrain_as_one_process_with_graphs_and_without(
    search_settings: SearchConfig, tmp_path: Path, joining: Joining
) -> None:
    settings: RetrainConfig = replace(text_retraining("recurrent"), **OF_TEXT)
    expected = retrained(ALONE, search_settings, settings, device=torch.device("cuda", 0))
    ranks = in_two_processes(retrained_on_cuda, search_settings, settings, folder=tmp_path, joining=joining)
    for way in ("retraining", "replayed"):
        first, second = (rank[way] for rank in ranks)
        assert torch.equal(first["network"], second["network"])
        assert_close_in_norm(first["network"], expected["network"], bound=1e-2)
        assert first["scores"] == pytest.approx(expected["scores"], rel=1e-2)


@pytest.mark.gpu
@needs_two_gpus
def test_nccl_puts_together_what_gloo_does(found: list[dict[str, Any]], tmp_path: Path) -> None:
    for mine, expected in zip(
        in_two_processes(collectives, "cuda", folder=tmp_path, joining=joined_by_nccl), found, strict=True
    ):
        for name in ("whole", "whole of one", "sum"):
            assert torch.equal(mine[name].cpu(), expected[name])
        for gradient, right in zip(mine["gradients"], expected["gradients"], strict=True):
            assert gradient is right is None or torch.equal(gradient, right)
        for name in ("any", "shared", "failure"):
            assert mine[name] == expected[name]


# --- the command line -------------------------------------------------------------------------------------------------


@contextmanager
def started(*words: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*map(str, words)], env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()


def torchrun(*options: str) -> list[str]:
    """The launcher, as a user calls it; the -- keeps it from taking our --run for one of its own options."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        *options,
        "-m",
        "enas",
        "--",
    ]


def wait_for_records(stage: Path, count: int, process: subprocess.Popen[str] | Forked) -> None:
    path = stage / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.said if isinstance(process, Forked) else process.communicate()
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ctrl_c_stops_all_ranks_at_one_step_and_one_process_goes_on(tmp_path: Path, search_config: Path) -> None:
    run = tmp_path / "run"
    search = ["search", "--config", search_config, "--run", run]
    with started(*torchrun(), *search) as process:
        wait_for_records(run / "search", 1, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    advice = f"stopped; go on with: torchrun … -m enas -- search --config {search_config} --run {run} --resume"
    assert errors.splitlines().count(advice) == 1
    assert errors.count("epoch 1/3: ") == 1
    assert load_checkpoint(run / "search" / "checkpoint.pt")["epoch"] >= 1
    assert not (run / "spec.json").exists()
    here(*search, "--resume")
    assert len(read_metrics(run / "search" / "metrics.jsonl")) == 3
    assert (run / "spec.json").exists()


def test_a_run_whose_worker_is_killed_starts_again_by_itself_from_its_checkpoint(
    tmp_path: Path, search_config: Path
) -> None:
    run = tmp_path / "run"
    search = ["search", "--config", search_config, "--run", run, "--resume"]
    # Without it workers that start again may read what those before them left (pytorch/pytorch#135712).
    env = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with started(*torchrun("--max-restarts=1"), *search, env=env) as process:
        wait_for_records(run / "search", 1, process)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(read_metrics(run / "search" / "metrics.jsonl")) == 3
    summary = json.loads((run / "search" / "summary.json").read_text())
    assert summary["device"] == "2 × cpu (1 thread)"
    assert (run / "spec.json").exists()


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_two_gpus])])
def test_when_a_rank_dies_the_other_ends_with_a_clear_error_within_a_minute(
    tmp_path: Path, search_config: Path, killed: int, device: str
) -> None:
    run, port = tmp_path / "run", free_port()
    words = ("search", "--config", str(search_config), "--run", str(run), "--device", device)
    processes = [Forked(forked.enas, *words, env={**os.environ, **environment(rank, port)}) for rank in range(2)]
    survivor = processes[1 - killed]
    try:
        wait_for_records(run / "search", 1, processes[0])
        processes[killed].kill()
        _, errors = survivor.communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
    assert survivor.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert f"process {1 - killed} of 2 has lost the others, one of which died or hangs" in line
    assert "go on from the last checkpoint with --resume" in line
    assert "Traceback" not in errors
