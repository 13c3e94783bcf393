"""Which device a run uses, and the settings that make arithmetic fast on it."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]

# The numbers of two settings of glibc's `mallopt`, the value for "never", and the largest block that glibc can keep.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER, _MOST_BYTES = -1, 32 << 20


class DeviceError(ValueError):
    """The requested device is not available."""


def resolve_device(name: str) -> torch.device:
    """Returns the device for auto, cpu or cuda; auto chooses CUDA if it works.

    Each of the processes that torchrun starts on a machine gets its own GPU.
    Raises: DeviceError: cuda was asked for by name and does not work here, or there are fewer GPUs than processes.
    """
    if name == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if 0 < torch.cuda.device_count() <= device.index:
        raise DeviceError(
            f"--device {name}: torchrun has started more processes here than there are CUDA devices "
            f"({torch.cuda.device_count()}); start one for each, or use --device cpu"
        )
    problem = _cuda_problem(device)
    if problem is None:
        return device
    if name == "auto":
        return torch.device("cpu")
    raise DeviceError(f"--device cuda: {problem}; use --device cpu, or auto")


def prepare(device: torch.device) -> None:
    """Makes the process-wide settings for fast arithmetic. Call before the first tensor operation.

    Threads inherit the flag for denormal numbers from the thread that starts them, so it must be set before there are
    any; a small supernet trains up to four times as fast with it.
    """
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    else:
        _keep_freed_memory()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Computes with `count` threads on the CPU inside the block; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe(device: torch.device, *, count: int = 1) -> str:
    """Returns a description for the user and for a run's records. count: number of such devices that compute."""
    times = f"{count} × " if count > 1 else ""
    if device.type == "cuda":
        return f"{times}cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{times}cpu ({threads} thread{'s' if threads > 1 else ''})"


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """The context for forward passes.

    auto: bfloat16 on GPUs that support it in hardware, else float32 (on CUDA with TF32, 10 bits of mantissa). An
    explicit float32 is full float32 everywhere, except that CUDA's backward passes, which run outside, keep TF32.
    """
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and _has_bfloat16()):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    elif precision == "float32" and device.type == "cuda":
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    else:
        yield


def products_precision(device: torch.device, precision: Precision) -> Precision:
    """Returns the precision of matrix products in training: auto becomes bfloat16 on CPUs where that is faster.

    On CPUs with AVX512_BF16 or AMX a product of large matrices takes half the time. Products that gain nothing
    still use float32, see `nn/kernels/dense.py`.
    """
    if precision == "auto" and device.type == "cpu" and _cpu_has_bfloat16():
        return "bfloat16"
    return precision


def _keep_freed_memory() -> None:
    """Makes the C library keep the memory of freed tensors of up to 32 MiB for later tensors.

    Memory returned to the system must be requested and zeroed again in every step, which takes some 8 % of a step of a
    micro supernet. Works only with glibc; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MOST_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)


@functools.cache
def _has_bfloat16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


@functools.cache
def _cpu_has_bfloat16() -> bool:
    # The CPU may have instructions that torch was told not to use (ATEN_CPU_CAPABILITY); oneDNN then refuses some
    # products.
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    # torch has no public function for this; if the private ones are gone, float32 is safe.
    return any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _cuda_problem(device: torch.device) -> str | None:
    if not torch.backends.cuda.is_built():
        return f"this torch ({torch.__version__}) was built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device or driver was found"
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        return f"the CUDA device does not work ({str(error).splitlines()[0]})"
    return None
