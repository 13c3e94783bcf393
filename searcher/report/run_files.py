"""Reads the files that the commands wrote to a run directory; any of them may be missing.

Reports damaged files; leaves the meaning of their contents to the page.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charts.curves import Series
from foundation.document import DocumentError, read_json
from searcher.arch.catalog import check_is_run
from searcher.lineage import is_lstm_of, is_retraining_outdated
from searcher.running.metrics import read_metrics


@dataclass(frozen=True)
class Stage:
    """The files of a stage of the run: configuration, metrics and summary, each empty if it does not exist."""

    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, folder: Path) -> Stage:
        metrics = folder / "metrics.jsonl"
        return cls(
            config=_read_toml(folder / "config.toml"),
            summary=read_object(folder / "summary.json"),
            records=read_metrics(metrics) if metrics.exists() else (),
        )

    @property
    def begun(self) -> bool:
        return bool(self.config or self.records)

    def series(self, name: str, key: str, *, dashed: bool = False) -> Series:
        """The metric `key` over the epochs in which it was recorded as a number."""
        records = [record for record in self.records if "epoch" in record and isinstance(record.get(key), int | float)]
        return Series(name, [record["epoch"] for record in records], [record[key] for record in records], dashed=dashed)


def read_retraining(run: Path) -> tuple[Stage, Stage]:
    """The retraining of a run's network, and that of the LSTM beside it; each empty if it is of another."""
    if is_retraining_outdated(run):
        return Stage(), Stage()
    retrain, lstm = Stage.read(run / "retrain"), Stage.read(run / "retrain-lstm")
    return retrain, lstm if is_lstm_of(retrain.config, lstm.config) else Stage()


def table_in(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty if there is none."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def derived_in(run: Path) -> object:
    """The derivation candidate that became the run's network; None if the network comes from a search alone."""
    return table_in(table_in(read_object(run / "spec.json"), "provenance"), "derivation").get("chosen")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if the file does not exist. Raises: DocumentError."""
    if not path.exists():
        return {}
    document = read_json(path, DocumentError)
    if not isinstance(document, dict):
        raise DocumentError(str(path), ["expected a JSON object"])
    return document


def check_is_there(run: Path) -> None:
    """Raises: DocumentError: there is no such directory."""
    check_is_run(run)
    if not run.is_dir():
        command = f"enas search --run {shlex.quote(str(run))}"
        raise DocumentError(str(run), [f"no such run directory; `{command}` makes it"])


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DocumentError(str(path), [f"not valid TOML: {error}"]) from None
