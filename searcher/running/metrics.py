"""A run's metrics: JSON lines for programs, TensorBoard events for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.files import strict_json

_METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends records to `metrics.jsonl` and their numbers to TensorBoard files beside it.

    A run's checkpoint must contain `position`; opening the log at a checkpoint's position removes the records written
    after it. If the file is shorter than that, a warning is printed. TensorBoard drops its events from `next_step` on.
    """

    def __init__(self, folder: Path, *, position: int = 0, next_step: int = 0) -> None:
        self._path = folder / _METRICS
        with open(self._path, "a+b") as file:
            if file.tell() < position:
                # The file was cut by somebody, perhaps within a line; the next record must not be joined to that line.
                file.seek(0)
                position = file.read().rfind(b"\n") + 1
                print(f"{self._path}: records of earlier epochs are lost; going on without them", file=sys.stderr)
            file.truncate(position)
        # Importing it takes a second, so only a run that logs pays for it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)

    @property
    def position(self) -> int:
        """Length of the file in bytes."""
        return self._path.stat().st_size

    def append(self, record: Mapping[str, Any], *, step: int) -> None:
        """Adds one line, which is on disk when this returns; floats are rounded to 6 significant digits."""
        rounded = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in record.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(strict_json(rounded, indent=None) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for key, value in rounded.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def count_records(folder: Path) -> int:
    """Returns the number of complete lines in a folder's metrics; 0 if there is no file yet."""
    try:
        return (folder / _METRICS).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line cut short by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
