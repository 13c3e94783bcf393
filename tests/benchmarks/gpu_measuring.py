"""What a call takes on a device: its time, its memory, its kernels."""

from __future__ import annotations

import gc
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


@dataclass(frozen=True)
class Effort:
    """How long a work is measured."""

    num_architectures: int = 20
    """Random ones, which the calls of a round go through."""
    num_rounds: int = 5


def measured(call: Call, device: torch.device, effort: Effort) -> tuple[float, float, float | None]:
    """The last three fields of a `Row`."""
    count = effort.num_architectures
    run(call, count)  # records, compiles, chooses kernels for each of them
    reset(device)
    ms = float(np.median([ms_of(call, device, count) for _ in range(effort.num_rounds)]))
    mib = peak_mib(device)
    busy = device_work(call, device, count).ms / ms if device.type == "cuda" else None
    del call
    reset(device)
    return ms, mib, busy


def run(call: Call, count: int) -> None:
    for _ in range(count):
        call()


def ms_of(call: Call, device: torch.device, count: int) -> float:
    """Mean of `count` calls, all that the device has to do for them included."""
    wait_for(device)
    started = time.perf_counter()
    run(call, count)
    wait_for(device)
    return 1e3 * (time.perf_counter() - started) / count


@dataclass(frozen=True)
class DeviceWork:
    """What a device, or a CPU in its place, does for a call."""

    ms: float
    """In kernels."""
    kernels: float
    launches: float
    """By the host: of kernels one by one, and of graphs; 0 on a CPU."""
    shares: dict[str, float]
    """Of the kernels' time, by kernel, the largest first."""
    table: str


def device_work(call: Call, device: torch.device, count: int) -> DeviceWork:
    """Profiled over `count` calls. The kernels' times are right; the profiler's own work on the host is not counted."""
    is_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as profiler:
        run(call, count)
        wait_for(device)
    averages = profiler.key_averages()
    time_of = operator.attrgetter("self_device_time_total" if is_cuda else "self_cpu_time_total")
    where = DeviceType.CUDA if is_cuda else DeviceType.CPU
    kernels = [event for event in averages if event.device_type == where and not event.is_user_annotation]
    total = sum(map(time_of, kernels))
    return DeviceWork(
        ms=total / 1e3 / count,
        kernels=sum(event.count for event in kernels) / count,
        launches=sum(event.count for event in averages if event.key.startswith(_LAUNCHES)) / count,
        shares={e.key: time_of(e) / max(total, 1e-9) for e in sorted(kernels, key=time_of, reverse=True)},
        table=averages.table(sort_by="self_device_time_total" if is_cuda else "self_cpu_time_total", row_limit=40),
    )


def peak_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0


def reset(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
