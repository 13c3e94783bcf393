"""`make bench-gpu`: what each lever of the CUDA path is worth, one left out at a time, as a table for docs/gpu.md.

Steps of shared weights and the scoring of architectures over random architectures, and steps of retraining.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from foundation.machine import Machine
from searcher.running.device import describe, prepare, resolve_device
from tests.benchmarks.gpu_measuring import Effort, measured
from tests.benchmarks.gpu_works import ABLATION, SIZES, Images, Levers, Text, set_up, works_of_images, works_of_text

_OF_IMAGES = ("channels_last left out", "cuDNN's choice left out")


class Row(NamedTuple):
    """A work with one set of levers."""

    work: str
    levers: str
    ms: float
    """Median over rounds of a call's mean, which includes whatever waits for the device."""
    mib: float
    """The most that the device's allocator held, 0 on a CPU."""
    busy: float | None
    """Part of the time in which the device computes, None on a CPU."""


def main(device: torch.device, *, sizes: tuple[Images | Text, ...] = SIZES, effort: Effort = Effort()) -> None:  # noqa: B008
    """Print a table of every work at the sizes given."""
    prepare(device)
    print(Machine.inspect().describe())
    print(f"{describe(device)}, torch {torch.__version__}")
    first: Row | None = None
    for row in rows(device, sizes=sizes, effort=effort):
        if first is None or row.work != first.work:
            first = row
            print(
                f"\n{row.work}\n\n| | ms | of the first | MiB at most | GPU busy |\n| --- | ---: | ---: | ---: | ---: |"
            )
        busy = "" if row.busy is None else f"{row.busy:.0%}"
        print(f"| {row.levers} | {row.ms:.2f} | {row.ms / first.ms:.2f} | {row.mib:,.0f} | {busy} |", flush=True)


def rows(
    device: torch.device,
    *,
    sizes: Sequence[Images | Text],
    effort: Effort,
    ablation: Mapping[str, Levers] | None = None,
) -> Iterator[Row]:
    """Every work at the sizes given, with every set of levers: of ABLATION if there is no other."""
    for size in sizes:
        works = works_of_images if isinstance(size, Images) else works_of_text
        for work, make in works(size, device, effort):  # type: ignore[operator]
            for name, levers in (ABLATION if ablation is None else ablation).items():
                if isinstance(size, Text) and name in _OF_IMAGES:
                    continue
                with set_up(levers):
                    yield Row(work, name, *measured(make(levers), device, effort))


if __name__ == "__main__":
    try:
        main(resolve_device("cuda"))
    except ValueError as error:
        sys.exit(f"error: {error}")
