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
    """The requested executor is not available."""


def default_jobs(device: torch.device) -> int:
    """Returns the number of parallel jobs: one per core that this process may use; on CUDA, which a job fills, one."""
    if device.type != "cpu":
        return 1
    return usable_cores()


@contextmanager
def executor_for(num_jobs: int, *, address: str | None = None) -> Iterator[Executor | None]:
    """Yields an executor for `num_jobs` parallel jobs on this machine; None for one job, which runs in this process.

    Args: address: of a cluster to use instead, whose size sets the number of jobs: `dask:` and the address of its
        scheduler.
    Raises: ExecutorError: there is no such cluster, or its workers have more than one thread.
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
    """Yields the executor of a dask cluster; a job whose worker dies resumes on another from its last checkpoint."""
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
    """An executor of processes that each run one call at a time.

    Each process has its own ProcessPoolExecutor: if it dies, it breaks only that pool, and other calls continue.
    Processes are spawned, since torch's threads do not survive a fork, and end with this process, however it ends.
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
