"""Depthwise and pointwise convolutions, each by itself, by channels, layout and precision."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from tests.benchmarks.gpu_measuring import ms_of
from tests.gpu_check.job import Job, Record

_KERNELS = {"depthwise 3×3": 3, "depthwise 5×5": 5, "pointwise": 1}
_LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
_PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def main(job: Job, record: Record, device: torch.device) -> None:
    batch_size, side, calls = (2, 8, 1) if job.tiny else (160, 32, 20)
    combinations = list(itertools.product(_KERNELS, (20, 24, 32), _LAYOUTS, _PRECISIONS))
    for kernel, channels, layout, precision in combinations:
        if job.seconds_left < 0:
            break
        x = torch.randn(batch_size, channels, side, side).to(device, _PRECISIONS[precision])
        x = x.contiguous(memory_format=_LAYOUTS[layout]).requires_grad_()
        forward, backward = times(x, kernel, device, calls)
        row = {"kernel": kernel, "channels": channels, "layout": layout, "precision": precision}
        record.row("kernels", {**row, "forward_us": round(1e3 * forward, 1), "backward_us": round(1e3 * backward, 1)})
    measured = len(record.figures.get("kernels", []))
    record.check("every kernel was measured", measured == len(combinations), f"{measured} of {len(combinations)}")


def times(x: Tensor, kernel: str, device: torch.device, calls: int) -> tuple[float, float]:
    """Forward, and backward to the input and the weight: ms each."""
    size, channels = _KERNELS[kernel], x.shape[1]
    groups = 1 if kernel == "pointwise" else channels
    weight = torch.randn(channels, channels // groups, size, size).to(device, x.dtype).requires_grad_()
    y = functional.conv2d(x, weight, padding=size // 2, groups=groups)
    grad = torch.ones_like(y)

    def forward() -> None:
        with torch.no_grad():
            functional.conv2d(x, weight, padding=size // 2, groups=groups)

    def backward() -> None:
        torch.autograd.grad(y, (x, weight), grad, retain_graph=True)

    found = []
    for call in (forward, backward):
        ms_of(call, device, calls)  # cuDNN chooses
        found.append(ms_of(call, device, calls))
    return found[0], found[1]
