"""The ablation of `make bench-gpu`: a step of the micro search without torch.compile, or with --full all there is."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.training.image_learner import ImageTraining
from tests.benchmarks.gpu import rows
from tests.benchmarks.gpu_measuring import Effort
from tests.benchmarks.gpu_works import ABLATION, SIZES, Images
from tests.gpu_check.job import Job, Record

_SLOW = "torch.compile in their place"
_TINY = Images(
    "micro", MicroSpace(2), MicroSize(3, 4), MicroSize(3, 4), 4, 4, (8, 8, 3), ImageTraining(auxiliary_weight=0.4)
)


def main(job: Job, record: Record, device: torch.device) -> None:
    ablation = {name: levers for name, levers in ABLATION.items() if job.full or name != _SLOW}
    sizes = (_TINY,) if job.tiny else SIZES if job.full else SIZES[:1]
    effort = Effort(1, 1) if job.tiny else Effort(8, 2)
    if job.tiny:
        ablation = dict(itertools.islice(ablation.items(), 2))
    ended = True
    measured = rows(device, sizes=sizes, effort=effort, ablation=ablation)
    for row in measured if job.full else itertools.islice(measured, len(ablation)):
        found: dict[str, Any] = row._asdict()
        record.row("levers", {**found, "ms": round(row.ms, 3), "mib": round(row.mib), "busy": _rounded(row.busy)})
        if job.seconds_left < 0:
            ended = False
            break
    record.check("every lever was left out once", ended, f"{len(record.figures['levers'])} rows")


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
