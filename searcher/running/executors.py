"""Where jobs run: executors of `concurrent.futures`, of this machine or of an existing cluster engine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from foundation.allowance import usable_cores
from foundation.parallel import begin_process

R = TypeVar("R")


class ExecutorError(ValueError):
    """The executor a user asked for cannot be had."""


def default_jobs(device: torch.device) -> int:
    """One for each core that this process may use; on CUDA, where a job fills the device, one."""
    if device.type != "cpu":
        return 1
    return usable_cores()


@contextmanager
def executor_for(num_jobs: int, *, address: str | None = None) -> Iterator[Executor | None]:
    """What runs `num_jobs` jobs at a time on this machine; None for one, which needs no process beside this one.

    address: of a cluster to run them on instead, which has its own number: `dask:` and that of a dask scheduler.
    Raises: ExecutorError: there is no such cluster, or its workers are not as jobs need them.
    """
    if address is not None:
        with _dask(address) as executor:
            yield executor
    elif num_jobs == 1:
        yield None
    else:
        with LoneProcesses(num_jobs) as executor:
            yield executor


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """The executor of a dask cluster; a job whose worker dies begins again on another, from its last checkpoint."""
    kind, _, scheduler = address.partition(":")
    if kind != "dask" or not scheduler:
        raise ExecutorError(f"--executor {address}: expected dask: and a scheduler's address, as dask:tcp://host:8786")
    from distributed import Client

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise ExecutorError(f"--executor {address}: no dask scheduler answers there ({error})") from None
    with client:
        if any(count > 1 for count in client.nthreads().values()):
            raise ExecutorError(
                f"--executor {address}: its workers must have one thread each (dask worker --nthreads 1)"
            )
        yield client.get_executor(pure=False)


class LoneProcesses(Executor):
    """Processes that each do one call at a time.

    Each is a ProcessPoolExecutor of its own: a process that dies breaks its pool, and takes no other's work with it.
    They are spawned, since torch's threads do not outlive a fork, and end when this process does, however it ends.
    """

    def __init__(self, size: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="job")
        self._pools: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(size):
            self._pools.put(_pool())

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        return self._threads.submit(self._run, partial(fn, *args, **kwargs))

    def _run(self, call: Callable[[], R]) -> R:
        pool = self._pools.get()
        try:
            return pool.submit(call).result()
        except BrokenExecutor:
            pool.shutdown()
            pool = _pool()
            raise
        finally:
            self._pools.put(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self._pools.empty():
            self._pools.get().shutdown(wait)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin_process)
