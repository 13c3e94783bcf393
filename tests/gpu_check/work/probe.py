"""The search of preset `reference` on pictures like CIFAR-10's: how fast it is, and what holds it up.

CUDA graphs off and on, with and without `update_unused`, in the default precision and in float32. What the preset
itself does comes first, so that a run that is cut short has measured it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.catalog import load_images
from datasets.store import ImageStore, StoreError
from datasets.store_writer import write_image_store
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.presets.catalog import search_preset
from searcher.running.device import Precision
from searcher.training.loop import Search
from searcher.training.search_config import SearchConfig
from tests.benchmarks.gpu_measuring import device_work, ms_of, peak_mib, reset
from tests.benchmarks.gpu_works import graphs_on
from tests.gpu_check.job import Job, Record

HOURS_GOAL = 1.0
_NUM_TOP_KERNELS = 12


@dataclass(frozen=True)
class Way:
    """A row of the table."""

    graphs: bool
    update_unused: bool
    precision: Precision

    def __str__(self) -> str:
        graphs = "on" if self.graphs else "off"
        return f"graphs {graphs}, update_unused {'on' if self.update_unused else 'off'}, {self.precision}"


WAYS = tuple(
    Way(graphs, update_unused, precision)
    for precision in ("auto", "float32")
    for update_unused in (True, False)
    for graphs in (False, True)
)


@dataclass(frozen=True)
class Effort:
    """How many steps a row takes; fewer where its share of the time is over."""

    warm_up: int
    """At least; with graphs on, until that many steps have recorded nothing new."""
    round: int
    """Steps between two looks at the clock."""
    rounds: int
    profiled: int
    policy: int


_EFFORT, _TINY_EFFORT = Effort(30, 10, 10, 9, 3), Effort(2, 1, 2, 1, 1)


def main(job: Job, record: Record, device: torch.device) -> None:
    config, store = tiny_search(job.folder) if job.tiny else reference_search(job.folder)
    effort = _TINY_EFFORT if job.tiny else _EFFORT
    record.note(dataset=store.name, batch_size=config.batch_size, epochs=config.num_epochs)
    for number, way in enumerate(WAYS):
        share_s = job.seconds_left / (len(WAYS) - number)
        if share_s < (0 if job.tiny else 4):
            break
        row = measured(way, config, store, device, effort, until=time.monotonic() + share_s, tables=job.folder)
        record.row("probe", row)
    rows = record.figures.get("probe", [])
    record.check("every way was measured", len(rows) == len(WAYS), f"{len(rows)} of {len(WAYS)}")
    compare_losses(rows, record)
    if device.type == "cuda" and not job.tiny and rows:
        fastest = min(row["hours"] for row in rows if row["update_unused"] and row["precision"] == "auto")
        record.check(
            f"{config.num_epochs} epochs of reference take under {HOURS_GOAL:g} hour",
            fastest < HOURS_GOAL,
            f"{fastest:.2f} hours",
        )


def compare_losses(rows: list[dict[str, Any]], record: Record) -> None:
    """Whether the first step's loss is the same with graphs and without them."""
    losses: dict[tuple[bool, str], dict[bool, float]] = {}
    for row in rows:
        losses.setdefault((row["update_unused"], row["precision"]), {})[row["graphs"]] = row["first_loss"]
    pairs = [(pair[False], pair[True]) for pair in losses.values() if len(pair) == 2]
    largest = max((abs(on - off) / abs(off) for off, on in pairs), default=float("nan"))
    record.check("graphs change no first loss", bool(pairs) and largest < 0.02, f"relative difference {largest:.1e}")


def measured(
    way: Way,
    config: SearchConfig,
    store: ImageStore,
    device: torch.device,
    effort: Effort,
    *,
    until: float,
    tables: Path,
) -> dict[str, Any]:
    """A row. until: on the clock of `time.monotonic`. tables: the folder for its table of kernels."""
    reset(device)
    started = time.monotonic()
    config = replace(config, precision=way.precision, sgd=replace(config.sgd, update_unused=way.update_unused))
    graphs = graphs_on(device) if way.graphs else None
    run = Search(config, store=store, device=device, graphs=graphs)
    steps = endless(run)
    next(steps)
    first_loss = float(run.weights.totals.means()[0])

    def over(share: float) -> bool:
        return time.monotonic() > started + share * (until - started)

    quiet, count, number = 0, 1, 0 if graphs is None else len(graphs)
    while quiet < effort.warm_up and not over(0.5):
        next(steps)
        count += 1
        now = 0 if graphs is None else len(graphs)
        quiet, number = (quiet + 1, number) if now == number else (0, now)
    warm_up_s = time.monotonic() - started
    reset(device)

    rounds: list[float] = []
    while len(rounds) < effort.rounds and (len(rounds) < 2 or not over(0.75)):
        rounds.append(ms_of(lambda: next(steps), device, effort.round))
    ms = float(np.median(rounds))
    work = device_work(lambda: next(steps), device, effort.profiled)
    (tables / f"kernels, {way}.txt").write_text(work.table, encoding="utf-8")
    mib = peak_mib(device)
    run.weights.totals.check()
    policy_ms = time_of_policy(run, device, effort.policy)
    num_steps = config.num_epochs * run.weights.steps_per_epoch
    num_policy_steps = (config.num_epochs - config.policy_start_epoch) * config.policy_steps
    return {
        "graphs": way.graphs,
        "update_unused": way.update_unused,
        "precision": way.precision,
        "ms": round(ms, 3),
        "least_ms": round(min(rounds), 3),
        "most_ms": round(max(rounds), 3),
        "images_per_s": round(1e3 * config.batch_size / ms),
        "kernel_ms": round(work.ms, 3),
        "busy": round(work.ms / ms, 3),
        "kernels": round(work.kernels),
        "launches": round(work.launches),
        "peak_mib": round(mib),
        "policy_ms": round(policy_ms, 2),
        "hours": round((num_steps * ms + num_policy_steps * policy_ms) / 3.6e6, 3),
        "first_loss": round(first_loss, 5),
        "recordings": number,
        "warm_up_steps": count,
        "warm_up_s": round(warm_up_s, 1),
        "top_kernels": [[name[:120], round(s, 3)] for name, s in list(work.shares.items())[:_NUM_TOP_KERNELS]],
    }


def endless(run: Search) -> Iterator[None]:
    """Steps of the shared weights, epoch after epoch."""
    while True:
        yield from run.train_weights()
        run.epoch, run.step = run.epoch + 1, 0


def time_of_policy(run: Search, device: torch.device, count: int) -> float:
    """Mean ms of a policy step, after one that is not counted."""
    run.epoch, run.step = max(run.epoch, run.config.policy_start_epoch), 0
    policy = run.train_policy()
    next(policy)
    return ms_of(lambda: next(policy), device, count)


# --- what is searched -------------------------------------------------------------------------------------------------


def reference_search(folder: Path) -> tuple[SearchConfig, ImageStore]:
    """The preset on CIFAR-10 where its store is at hand, else on noise of its shape and size."""
    config = search_preset("micro", "reference", image_size=32)
    try:
        store = load_images(config.dataset)
    except StoreError:
        store = noise(folder, side=32, counts=(45_000, 5_000, 160))
    return replace(config, dataset=store.name), store


def tiny_search(folder: Path) -> tuple[SearchConfig, ImageStore]:
    """The same at a size for a CPU."""
    config = search_preset("micro", "reference", image_size=8)
    config = replace(
        config, search_space=MicroSpace(2), network=MicroSize(3, 4), batch_size=8, reward_batch_size=8, policy_samples=2
    )
    return config, noise(folder, side=8, counts=(64, 16, 8))


def noise(folder: Path, *, side: int, counts: tuple[int, int, int]) -> ImageStore:
    """A store of pictures of nothing, three channels, ten classes."""
    rng, path = np.random.default_rng(0), folder / "noise.h5"
    splits = {
        split: (rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8), np.arange(count, dtype=np.int64) % 10)
        for split, count in zip(("train", "valid", "test"), counts, strict=True)
    }
    classes = [f"class {number}" for number in range(10)]
    write_image_store(path, name="noise", splits=splits, classes=classes, source="made up", licence="CC0-1.0")
    return load_images(str(path))
