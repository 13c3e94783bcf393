"""`make bench`: what docs/results.md says is fast, beside its plain twin. `make bench ONLY=sampling` runs one."""

from __future__ import annotations

import sys
from collections.abc import Callable

from foundation.machine import Machine
from tests.benchmarks import (
    augmentations,
    batches,
    benchmark_harness,
    graphs,
    imports,
    latencies,
    optimizer,
    recurrent,
    sampling,
    supernet,
    threads,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "sampling": sampling.main,
    "batches": batches.main,
    "augmentations": augmentations.main,
    "supernet": supernet.main,
    "graphs": graphs.main,
    "recurrent": recurrent.main,
    "optimizer": optimizer.main,
    "threads": threads.main,
    "imports": imports.main,
    "harness": benchmark_harness.main,
    "latencies": latencies.main,
}

if __name__ == "__main__":
    print(Machine.inspect().describe())
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()
