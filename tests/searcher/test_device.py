"""What a process computes with."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROBE = """
import resource, torch
from searcher.training.device import prepare

if {prepared}:
    prepare(torch.device("cpu"))
step = lambda: [torch.ones(2**21) for _ in range(20)]  # 160 MiB
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_a_step_frees_serves_the_next_one() -> None:
    faults = {
        prepared: int(
            subprocess.run(
                [sys.executable, "-c", _PROBE.format(prepared=prepared)], capture_output=True, check=True
            ).stdout
        )
        for prepared in (False, True)
    }
    if faults[False] < 10_000:
        pytest.skip("the system itself keeps memory here, or maps it in large pages")
    assert faults[True] < faults[False] / 10
