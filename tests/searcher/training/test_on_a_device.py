"""What has to hold on a GPU as on the CPU: a stopped search goes on as it was, and gradients reach DDP's hooks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from searcher.arch.spaces.micro import MicroSize
from searcher.nn.build import build_network
from searcher.nn.graphs import GraphedNetwork, Graphs
from searcher.running.checkpoint import load_checkpoint, save_checkpoint
from searcher.training.loop import Search
from tests.benchmarks.gpu_works import graphs_on
from tests.end_to_end.two_processes import environment, free_port
from tests.gpu_check.work.probe import tiny_search
from tests.searcher.conftest import make_spec, random_architecture
from tests.searcher.norms import assert_close_in_norm

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)]
devices = pytest.mark.parametrize("device", DEVICES, ids=str)


def steps_of(run: Search, count: int) -> dict[str, Any]:
    """What `count` steps of the shared weights and one of the policy lead to."""
    for _, _ in zip(range(count), run.train_weights(), strict=False):
        pass
    loss = run.weights.totals.means()[0]
    run.phase, run.step = "policy", 0
    return {"loss": loss, "reward": next(run.train_policy()), "weights": list(run.supernet.parameters())}


@devices
@pytest.mark.parametrize("replays", [False, True], ids=["plain", "graphs"])
def test_a_resumed_search_takes_the_next_step_of_one_that_went_on(
    tmp_path: Path, device: torch.device, replays: bool
) -> None:
    config, store = tiny_search(tmp_path)
    config = replace(config, precision="float32")

    def begun() -> Search:
        return Search(config, store=store, device=device, graphs=graphs_on(device) if replays else None)

    run = begun()
    for _, _ in zip(range(2), run.train_weights(), strict=False):
        pass
    save_checkpoint(tmp_path / "checkpoint.pt", run.state())
    resumed = begun()
    resumed.load(load_checkpoint(tmp_path / "checkpoint.pt"))
    assert resumed.step == run.step == 2
    expected, found = steps_of(run, 1), steps_of(resumed, 1)
    assert all(parameter.device.type == device.type for parameter in found["weights"])
    bound = 0.0 if device.type == "cpu" else 1e-3
    assert_close_in_norm(found["weights"], expected["weights"], bound=bound)
    assert found["loss"] == pytest.approx(expected["loss"], rel=bound)
    assert found["reward"] == pytest.approx(expected["reward"], abs=1e-6 if device.type == "cpu" else 0.3)


@devices
@pytest.mark.parametrize("replays", [False, True], ids=["plain", "graphs"])
def test_gradients_reach_the_hooks_of_ddp(device: torch.device, replays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a world of one, which NCCL takes on one GPU; its watchdog runs while graphs are recorded."""
    for name, value in {**environment(0, free_port()), "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    spec = make_spec(random_architecture(1), MicroSize(5, 8))
    plain, network = (build_network(spec).to(device) for _ in range(2))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        graphs: Graphs = graphs_on(device)
        called: nn.Module = GraphedNetwork(network, graphs) if replays else network
        replica = DistributedDataParallel(called)
        for _ in range(2):
            images = torch.randn(4, 1, 12, 12).to(device)
            for module in (plain, replica):
                module.zero_grad(set_to_none=True)
                module(images)[0].square().mean().backward()
            found, expected = ([p.grad for p in module.parameters()] for module in (network, plain))
            assert_close_in_norm(found, expected, bound=1e-6 if device.type == "cpu" else 1e-3)
        assert len(graphs) == replays
    finally:
        torch.distributed.destroy_process_group()
