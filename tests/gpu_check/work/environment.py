"""What the check runs on: GPU, driver, versions, commit; and two ceilings, of copying and of bfloat16 products."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from foundation.machine import Machine
from searcher.running.device import describe
from tests.benchmarks.gpu_measuring import ms_of
from tests.gpu_check.job import Job, Record

_ROOT = Path(__file__).parents[3]
_NUM_CALLS = 10


def main(job: Job, record: Record, device: torch.device) -> None:
    machine = Machine.inspect()
    versions = {**machine.versions, "torch": torch.__version__}
    if device.type == "cuda":
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        properties = torch.cuda.get_device_properties(device)
        record.note(
            gpu=properties.name,
            memory_gib=round(properties.total_memory / 2**30, 1),
            multiprocessors=properties.multi_processor_count,
            driver=_said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        )
    record.note(
        device=describe(device),
        cpu=machine.cpu,
        cores=machine.usable_cores,
        system=machine.system,
        versions=versions,
        onnxruntime_providers=_providers(),
        commit=_said_by("git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
    )
    copy_gb_s, product_tflop_s = copy_bandwidth(device, tiny=job.tiny), product_rate(device, tiny=job.tiny)
    record.note(copy_gb_s=round(copy_gb_s, 1), bfloat16_tflop_s=round(product_tflop_s, 3))
    record.check("the device copies and multiplies", copy_gb_s > 0 and product_tflop_s > 0)


def copy_bandwidth(device: torch.device, *, tiny: bool) -> float:
    """GB/s, read and written bytes added up."""
    source = torch.ones(2**16 if tiny else 2**28, device=device)
    target = torch.empty_like(source)
    ms = _steady_ms(lambda: target.copy_(source), device)
    return 2 * source.nbytes / ms / 1e6


def product_rate(device: torch.device, *, tiny: bool) -> float:
    """TFLOP/s of a large product of bfloat16 matrices."""
    side = 64 if tiny else 8192
    a, b = (torch.ones(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 2 * side**3 / _steady_ms(lambda: a @ b, device) / 1e9


def _steady_ms(call: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        call()
    return ms_of(call, device, _NUM_CALLS)


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _said_by(*words: str) -> str:
    """A program's first line, or why there is none."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{words[0]}: {error}", file=sys.stderr)
        return "unknown"
    return next(iter(done.stdout.splitlines()), "unknown")
