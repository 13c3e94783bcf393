"""Several processes that train together, started by torchrun: the only module that knows torch.distributed.

Other modules see a `World`: the rank of this process, and how ranks split work and combine its results. All ranks must
call its methods at the same points of the program.
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

# A process that died is noticed at once by its closed connections; this timeout is for a process that hangs.
_PATIENCE = timedelta(seconds=50)

T = TypeVar("T")


class DistributedError(ValueError):
    """The processes of a run have lost contact, or one of them has failed."""


@dataclass(frozen=True)
class World:
    """The processes of a run. With a single process, no method communicates."""

    rank: int = 0
    """This process's number."""
    size: int = 1
    """Number of processes."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads and writes the run's files, and prints messages."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[str | int, ...]:
        """The part of a name that makes this rank's random streams its own; empty on rank 0, as in a single process."""
        return ("rank", self.rank) if self.rank > 0 else ()

    def part(self, count: int) -> slice:
        """Returns this rank's part of `count` consecutive items; the parts are as equal as possible."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Combines the parts of all ranks, each [n, …] as cut by `part(count)`, into [count, …]."""
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
        """Returns for each flag whether any rank has set it. Sent between CPUs, so that no device is waited for."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.uint8)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copies the values of rank 0 to every rank, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def share(self, make: Callable[[], T]) -> T:
        """Returns the result of `make` on every rank; only rank 0 calls it.

        Raises: DistributedError: `make` failed on rank 0. Rank 0 itself raises the original error.
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
        """Replaces every gradient with its mean over ranks.

        A rank that did not use a parameter counts with zero; a parameter that no rank used still has no gradient. So a
        step is the paper's estimate with one architecture per rank, M = W.
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
        # One message, since nearly all the cost of a message is its start.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        means = (flat / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def replicate(self, network: nn.Module) -> nn.Module:
        """Returns the network to call in training, so that a backward pass averages its gradients over ranks.

        Batch norm uses each rank's own statistics; the running averages are those of rank 0.
        """
        return network if self.size == 1 else DistributedDataParallel(network)


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Yields the world of this process: the processes that torchrun has started, or this process alone.

    A process that ends normally, or by Stopped, announces this to the others: they may still be writing a checkpoint,
    and must not treat it as lost.

    Raises: DistributedError: another process died, or no longer responds.
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
            atexit.register(leave)  # a normal exit would wait for pending NCCL operations
        raise DistributedError(_lost(world, str(error).splitlines()[0])) from None
    finally:
        if pulse is not None:
            pulse.stop(leaves=leaves)
        if leaves:
            distributed.destroy_process_group()


def _begin(world: World, store: distributed.Store, device: torch.device) -> Pulse | None:
    """Connects the ranks; with NCCL, also starts and returns a pulse that detects lost processes."""
    options: dict[str, Any] = {"store": store, "rank": world.rank, "world_size": world.size, "timeout": _PATIENCE}
    if device.type != "cuda":
        distributed.init_process_group("gloo", **options)
        return None
    # An error found by NCCL's watchdog must be raised at the next message, not abort the process.
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
