"""What a process computes with."""

from __future__ import annotations

import os
import platform
import resource

import pytest
import torch

from searcher.running.device import prepare
from tests.forked import Forked


def count_faults(prepared: bool) -> None:
    """Say how many pages a process's step asks the system for, the least of some after the first two."""
    if prepared:
        prepare(torch.device("cpu"))

    def step() -> None:
        [torch.ones(2**21) for _ in range(20)]  # 160 MiB

    asked = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
        asked.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(min(asked[2:]))  # now and then one moves a block or two


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_a_step_frees_serves_the_next_one() -> None:
    faults = {}
    for prepared in (False, True):
        output, errors = Forked(count_faults, prepared, env=os.environ).communicate(timeout=60)
        assert not errors
        faults[prepared] = int(output)
    if faults[False] < 10_000:
        pytest.skip("the system itself keeps memory here, or maps it in large pages")
    assert faults[True] < faults[False] / 10
