"""Importing 60,000 small JPEG files: by one thread, by as many threads as there are cores, by as many processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from datasets.sources import own_pictures
from foundation import parallel
from foundation.parallel import Workers

NUM_FILES = 60_000
NUM_CLASSES = 10
SIDE = 32
TURNS = 3


@contextmanager
def one_thread() -> Iterator[Workers]:
    with ThreadPoolExecutor(1) as pool:
        yield Workers(pool, at_once=1)


WAYS: dict[str, Callable[[], AbstractContextManager[Workers]]] = {
    "one thread": one_thread,
    f"{parallel.num_workers()} threads": parallel.thread_pool,
    f"{parallel.num_workers()} processes": parallel.process_pool,
}


def main(num_files: int = NUM_FILES) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures", num_files)
        for _ in range(TURNS):
            for name, workers in WAYS.items():
                seconds[name].append(time_import(Path(folder), workers))
    print(f"\nimport of {num_files:,} JPEG files of {SIDE}×{SIDE}: medians of {TURNS} turns")
    medians = {name: float(np.median(samples)) for name, samples in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:<34}{median:>10.1f} s{num_files / median:>12,.0f} files/s   {first / median:.2f} × as fast")


def write_pictures(folder: Path, count: int) -> None:
    """Parts of one smooth picture, as files of about a kilobyte."""
    rng = np.random.default_rng(0)
    whole = Image.fromarray(rng.integers(0, 256, (80, 80, 3), np.uint8)).resize((1000, 1000), Image.Resampling.BICUBIC)
    for number, (left, top) in enumerate(rng.integers(0, 1000 - SIDE, (count, 2)).tolist()):
        path = folder / f"class-{number % NUM_CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.crop((left, top, left + SIDE, top + SIDE)).save(path, quality=90)


def time_import(folder: Path, workers: Callable[[], AbstractContextManager[Workers]]) -> float:
    start_s = time.perf_counter()
    with mock.patch.object(own_pictures, "_workers", return_value=workers()):
        own_pictures.build(folder / "pictures", folder / "store.h5", name="pictures")
    return time.perf_counter() - start_s
