"""The latency table that a search predicts with, kept in its folder.

A resumed search uses the table that it began with, even if the machine's own table has been measured again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from searcher.arch.tasks import ImageClassification, Task
from searcher.latency.blocks import blocks_of_space
from searcher.latency.table import LatencyTable, read_table

KEPT = "latency.json"
"""In a search's folder."""


class Tables(Protocol):
    """A source of latency tables of spaces."""

    def latency_table(
        self, space_name: str, space: Any, network: Any, task: Task, *, batch: int, threads: int
    ) -> LatencyTable: ...


@dataclass(frozen=True)
class KeptTables:
    """Takes the table from a search's folder if it fits the request, else from `others`."""

    folder: Path
    others: Tables

    def latency_table(
        self, space_name: str, space: Any, network: Any, task: Task, *, batch: int, threads: int
    ) -> LatencyTable:
        """Raises: TableError: the kept table is damaged, or as raised by `others`."""
        path = self.folder / KEPT
        if path.exists():
            table = read_table(path)
            fits = (table.space, table.setting.batch, table.setting.threads) == (space_name, batch, threads)
            assert isinstance(task, ImageClassification)
            if fits and set(blocks_of_space(space_name, space, network, task)) <= set(table.rows):
                return table
        return self.others.latency_table(space_name, space, network, task, batch=batch, threads=threads)
