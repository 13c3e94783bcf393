"""Several processes that train together, as torchrun starts them: the one room that knows torch.distributed.

The others see a `World`: which rank they are, and how ranks share work and put its results together. All ranks call its
methods at the same moments.
"""

# W ranks, n values or architectures

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from searcher.running.interrupt import Stopped
from searcher.running.pulse import Pulse, leave

# A process that died is noticed at once, by its closed connections; this is for one that hangs.
_PATIENCE = timedelta(seconds=50)

T = TypeVar("T")


class DistributedError(ValueError):
    """The processes of a run have lost one another."""


@dataclass(frozen=True)
class World:
    """The processes of a run. Alone, a process gets back from every method what it gave."""

    rank: int = 0
    """This process's number."""
    size: int = 1
    """How many there are."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads and writes the run, and speaks."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[str | int, ...]:
        """What tells this rank's random streams from the others'; the first has those of a process alone."""
        return ("rank", self.rank) if self.rank > 0 else ()

    def part(self, count: int) -> slice:
        """This rank's share of `count` things in a row, as equal as possible."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def whole(self, part: Tensor, count: int) -> Tensor:
        """The ranks' shares, each [n, …] as `part(count)` cuts them, put together: [count, …]."""
        if self.size == 1:
            return part
        whole = part.new_zeros(count, *part.shape[1:])
        whole[self.part(count)] = part
        distributed.all_reduce(whole)
        return whole

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, elementwise."""
        if self.size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag, whether it is set on any rank. Between CPUs, so that no device is waited for."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.uint8)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def share(self, make: Callable[[], T]) -> T:
        """What `make` gives, which runs on the first rank alone.

        Raises: DistributedError: `make` failed there; on the first rank, what it raised.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [None, ""]  # the value, and what went wrong
        if self.leads:
            try:
                box[0] = make()
            except Exception as error:
                distributed.broadcast_object_list([None, str(error) or type(error).__name__], src=0)
                raise
        distributed.broadcast_object_list(box, src=0)
        if box[1]:
            raise DistributedError(f"process {self.rank}: process 0 has failed: {box[1]}")
        return box[0]

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient the mean over ranks, the same on all of them.

        A rank that did not use a parameter counts with zero; what no rank used has no gradient afterwards, either. So a
        step is the paper's estimate with an architecture a rank, M = W.
        """
        if self.size == 1:
            return
        used = self.any([parameter.grad is not None for parameter in parameters])
        gradients = []
        for parameter, is_used in zip(parameters, used, strict=True):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        # One message, since a message's cost is its start.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        means = (flat / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network as it is to be called in training, so that a backward pass averages its gradients over ranks.

        Batch norm takes each rank's own statistics; of running averages the first rank's count.
        """
        return network if self.size == 1 else DistributedDataParallel(network)


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world of this process: the one that torchrun has started it in, or itself alone.

    A process that ends its part as planned, or by Stopped, tells the others that it leaves: they may still be writing a
    checkpoint, and must not take it for lost.

    Raises: DistributedError: another process died, or does not answer any more.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    world = World(int(os.environ["RANK"]), size)
    pulse: Pulse | None = None
    leaves = False
    try:
        store, _, _ = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        pulse = _begin(world, store, device)
        yield world
        leaves = True
    except Stopped:
        leaves = True
        raise
    except RuntimeError as error:
        # gloo's errors have no class of their own.
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        if pulse is not None:
            atexit.register(leave)  # past what NCCL still waits for
        raise DistributedError(_lost(world, str(error).splitlines()[0])) from None
    finally:
        if pulse is not None:
            pulse.stop(leaves=leaves)
        if leaves:
            distributed.destroy_process_group()


def _begin(world: World, store: distributed.Store, device: torch.device) -> Pulse | None:
    """Let the ranks talk to one another; where NCCL carries their words, with a watch over them."""
    options: dict[str, Any] = {"store": store, "rank": world.rank, "world_size": world.size, "timeout": _PATIENCE}
    if device.type != "cuda":
        distributed.init_process_group("gloo", **options)
        return None
    # What NCCL's watchdog finds is to be raised where the next message is sent, rather than to abort the process.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    distributed.init_process_group("cpu:gloo,cuda:nccl", **options)
    own_store: Any = store.clone()  # type: ignore[attr-defined]
    pulse = Pulse(own_store, rank=world.rank, size=world.size, on_loss=lambda reason: leave(_lost(world, reason)))
    pulse.start()
    return pulse


def _lost(world: World, reason: str) -> str:
    return (
        f"process {world.rank} of {world.size} has lost the others, one of which died or hangs; "
        f"go on from the last checkpoint with --resume ({reason})"
    )
