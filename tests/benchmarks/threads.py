"""A retraining step of the default job beside other processes: on one thread, on all, and on as many as the run takes.

Every figure is of a process of its own, which trains for `_SECONDS` beside so many endless loops; a run's own number of
threads is what `enas retrain` comes to in that time, its beginnings included.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 12.0
_SETTLING_S = 5.0
_WAYS = {"one thread": 1, "a thread a core": -1, "as the run takes": 0}


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    print("\nretraining step, micro quick, batch of the preset; median after the first seconds, and the mean of all")
    for loops in (0, 1, 2):
        print(f"  beside {loops} busy process{'es' if loops != 1 else ''}")
        with _busy(loops):
            for name, count in _WAYS.items():
                command = [sys.executable, "-m", "tests.benchmarks.threads", str(count)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                print(f"    {name:<20}{done.stdout.strip()}", flush=True)


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(count: int) -> None:
    """Print what a step takes on `count` threads, -1 for one a core, 0 for what a run takes."""
    import torch

    from exporter.retraining.presets import retrain_preset
    from exporter.retraining.retraining import Retraining
    from foundation.allowance import usable_cores
    from searcher.arch.spec import Spec
    from searcher.presets.catalog import search_preset
    from searcher.running import device as devices
    from searcher.running.distributed import ALONE
    from searcher.running.threads import threads_for
    from searcher.training.task_kinds import load_store, task_of

    device = torch.device("cpu")
    devices.prepare(device)
    store = load_store("fashion-mnist-mini", space="micro")
    task = task_of(store, dataset="fashion-mnist-mini")
    found = search_preset("micro", "quick", image_size=28)
    spec = Spec("micro", found.search_space.random(random.Random(0)), found.final_network, task)

    def begin() -> Iterator[None]:
        return Retraining(spec, retrain_preset("micro", "quick"), store=store, device=device).train_epoch()

    steps = begin()
    count = usable_cores() if count < 0 else count
    with (
        tempfile.TemporaryDirectory() as folder,
        devices.torch_threads(count),
        threads_for(count, folder=Path(folder), device=device, world=ALONE, trial=begin, say=lambda line: None) as own,
    ):
        next(steps)
        times: list[tuple[float, float]] = []  # when it ended, how long it took
        started = ended = time.perf_counter()
        while ended < started + _SECONDS:
            before = ended
            if next(steps, "over") == "over":
                break
            own.between_steps()
            ended = time.perf_counter()
            times.append((ended - started, ended - before))
        late = [took for at, took in times if at > _SETTLING_S] or [took for _, took in times]
        mean = (ended - started) / len(times)
        print(
            f"{1e3 * statistics.median(late):>8.0f} ms{1e3 * mean:>8.0f} ms  ({len(times)} steps, {own.count} threads)"
        )


if __name__ == "__main__":
    measure(int(sys.argv[1]))
