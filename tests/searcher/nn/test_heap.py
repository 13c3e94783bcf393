"""Narrow networks train without damage to the heap, which some kernels of torch's do. In processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Kernels of the two kinds of CPU; the names are oneDNN's and ATen's. A CPU without AVX-512 computes both alike.
KERNELS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX-512": {"ONEDNN_MAX_CPU_ISA": "ALL", "ATEN_CPU_CAPABILITY": "avx512"},
}

# Every width below and around a vector of 8 numbers, at sizes whose last row and column a stride of 2 reads, and not.
PROGRAM = """
import torch
from searcher.nn.blocks import FactorizedReduction
from searcher.nn.kernels.dense import DenseConv

for width in range(1, 10):
    for layer in (DenseConv(width, 2, 1, stride=2), FactorizedReduction(width, 4, norm=torch.nn.Identity)):
        layer.to(memory_format=torch.channels_last)
        for side in (14, 15, 16, 28):
            x = torch.randn(16, width, side, side).to(memory_format=torch.channels_last).requires_grad_()
            for _ in range(10):
                layer(x).sum().backward()
print("whole")
"""


@pytest.mark.parametrize("kernels", KERNELS)
def test_strided_layers_of_any_width_leave_the_heap_whole(kernels: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **KERNELS[kernels]}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert (result.returncode, result.stdout) == (0, "whole\n"), result.stderr
