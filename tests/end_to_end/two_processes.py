"""What two processes do together, for tests that look at both: each writes what it found into a file of its own."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from datasets.catalog import load_text
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retraining import Retraining
from searcher.arch.spec import Spec
from searcher.nn.graphs import Graphs
from searcher.nn.recurrent import Dropout
from searcher.nn.tapes import CudaTapes, EagerTape
from searcher.running.distributed import ALONE, DistributedError, World, joined
from searcher.training.loop import Search
from searcher.training.search_config import SearchConfig
from searcher.training.task_kinds import task_of
from searcher.training.text_learner import TextTraining
from tests.forked import forking

CPU = torch.device("cpu")
PLAIN = TextTraining(window=10, dropout=Dropout(0, 0, 0, 0))
"""Without anything random or of a batch's own, so that shares of a batch add up to the batch."""


Joining = Callable[[], AbstractContextManager[World]]


def joined_on_the_cpu() -> AbstractContextManager[World]:
    return joined(CPU)


@contextmanager
def joined_by_nccl() -> Iterator[World]:
    """A GPU for each rank, which NCCL insists on."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    with joined(device) as world:
        yield world


@contextmanager
def joined_on_one_gpu() -> Iterator[World]:
    """Both ranks on the same GPU: gloo takes its tensors by way of the CPU."""
    torch.cuda.set_device(0)
    distributed.init_process_group("gloo")
    yield World(distributed.get_rank(), distributed.get_world_size())
    distributed.destroy_process_group()


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun would set for one of two processes."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_two_processes(
    work: Callable[..., dict[str, Any]], *arguments: Any, folder: Path, joining: Joining = joined_on_the_cpu
) -> list[dict[str, Any]]:
    """What `work(world, *arguments)` gives on rank 0 and on rank 1, which `joining` lets talk to each other."""
    port = free_port()
    context = forking()
    processes = [context.Process(target=_run, args=(work, arguments, rank, port, folder, joining)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _run(
    work: Callable[..., dict[str, Any]],
    arguments: tuple[Any, ...],
    rank: int,
    port: int,
    folder: Path,
    joining: Joining,
) -> None:
    os.environ |= environment(rank, port)
    torch.set_num_threads(1)
    with joining() as world:
        torch.save(work(world, *arguments), folder / f"{rank}.pt")


def collectives(world: World, device: str = "cpu") -> dict[str, Any]:
    """Every way of a world to put things together, on values that differ by rank."""
    network = nn.ModuleList(nn.Linear(2, 1, bias=False) for _ in range(3)).to(device)
    everywhere, somewhere, nowhere = (layer.weight for layer in network)  # type: ignore[union-attr]
    everywhere.grad = torch.full_like(everywhere, 1.0 + world.rank)
    if world.rank == 1:
        somewhere.grad = torch.full_like(somewhere, 3.0)
    world.average_gradients([everywhere, somewhere, nowhere])

    def fail() -> None:
        raise OSError("no space left")

    try:
        world.share(fail)
    except (OSError, DistributedError) as error:
        failure = repr(error)
    return {
        "rank": world.rank,
        "gradients": [None if g is None else g.cpu() for g in (everywhere.grad, somewhere.grad, nowhere.grad)],
        "whole": world.whole(torch.arange(7.0, device=device)[world.part(7)], 7),
        "whole of one": world.whole(torch.ones(1, device=device)[world.part(1)], 1),
        "sum": world.sum(torch.tensor([1.0, world.rank], device=device)),
        "any": world.any([False, world.rank == 1, True]),
        "shared": world.share(lambda: f"from {world.rank}"),
        "failure": failure,
    }


class SameStreams(World):
    """Ranks that draw what a process alone draws."""

    @property
    def stream(self) -> tuple[str | int, ...]:
        return ()


def searched(world: World, config: SearchConfig, *, same_streams: bool = False) -> dict[str, Any]:
    """A search's losses by epoch, the architectures of its first steps, and where it ends."""
    if same_streams:
        world = SameStreams(world.rank, world.size)
    run = Search(config, store=load_text(config.dataset), device=CPU, world=world)
    first = run._sample(run.policy, 5, "architectures", 0, *world.stream)
    losses = []
    while run.epoch < config.num_epochs:
        for _ in run.train_weights():
            pass
        run.phase, run.step = "policy", 0
        rewards = list(run.train_policy())
        losses.append(run.end_epoch()["loss"])
    return {
        "architectures": first,
        "losses": losses,
        "rewards": rewards,
        "supernet": flat(run.supernet),
        "policy": flat(run.policy),  # type: ignore[arg-type]
    }


def retrained(
    world: World,
    searched: SearchConfig,
    config: RetrainConfig,
    *,
    graphs: Graphs | None = None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """A retraining's scores by epoch, and where it ends."""
    store = load_text(searched.dataset)
    architecture = searched.search_space.random(random.Random(0))
    spec = Spec("recurrent", architecture, searched.final_network, task_of(store, dataset=searched.dataset))
    run = Retraining(spec, config, store=store, device=device, world=world, graphs=graphs)
    scores = []
    for _ in range(config.num_epochs):
        for _ in run.train_epoch():
            pass
        scores.append(run.end_epoch()[0]["valid_perplexity"])
    return {"scores": scores, "network": flat(run.network)}


def together(world: World, search: SearchConfig, retraining: RetrainConfig) -> dict[str, Any]:
    """All of the above that needs training, in one start of two processes."""
    plain = replace(search, training=PLAIN, precision="float32", num_epochs=2)
    return {
        "search": searched(world, search),
        "same": searched(world, plain, same_streams=True),
        "retraining": retrained(world, search, retraining),
        "replayed": retrained(world, search, retraining, graphs=Graphs(EagerTape)),
    }


def retrained_on_cuda(world: World, search: SearchConfig, retraining: RetrainConfig) -> dict[str, Any]:
    """A retraining as it is and one that replays, on the process's GPU."""
    device = torch.device("cuda", torch.cuda.current_device())
    return {
        "retraining": retrained(world, search, retraining, device=device),
        "replayed": retrained(world, search, retraining, graphs=Graphs(CudaTapes()), device=device),
    }


def alone(search: SearchConfig, retraining: RetrainConfig) -> dict[str, Any]:
    """What a process alone does in the place of `together`."""
    plain = replace(search, training=PLAIN, precision="float32", num_epochs=2)
    return {
        "search": searched(ALONE, replace(search, architectures_per_step=2)),
        "same": searched(ALONE, plain),
        "retraining": retrained(ALONE, search, retraining),
    }


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).cpu()
