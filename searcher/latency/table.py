"""The latency table: the time of each fused block of a space on one machine, and how blocks add up to a network.

T = a + b · blocks + Σ rows, where a row is a block's time inside a network, and a and b are fitted on whole networks.
`enas latency profile` makes tables; a search reads them. Knows blocks, and nothing of onnxruntime.

Source: Cai et al. 2019 (ProxylessNAS), section 4.2, for tables of blocks.
"""

# n networks

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from foundation.document import DocumentError, Problems, check_keys, read_dataclass, read_json
from foundation.files import write_text
from searcher.arch.spec import Spec
from searcher.arch.tasks import Task
from searcher.latency.blocks import Block, blocks_of

SCHEMA = 1


class TableError(DocumentError):
    """A latency table is missing, is invalid, or was made for another machine or space."""


@dataclass(frozen=True)
class Setting:
    """The conditions under which a table is valid."""

    cpu: str
    """The model of the CPU, or of the GPU."""
    provider: str
    """onnxruntime's execution provider."""
    onnxruntime: str
    """Its version."""
    threads: int
    batch: int


@dataclass(frozen=True)
class Row:
    """A block's time inside a network: the latency of a network with it, minus the latency without it."""

    ms: float
    low_ms: float
    """Lower end of the 95 % interval; `high_ms` is its upper end."""
    high_ms: float


@dataclass(frozen=True)
class Fit:
    """How blocks add up, fitted on whole networks, and the error on held-out networks."""

    intercept_ms: float
    """a: the constant time of every network."""
    per_block_ms: float
    """b: the time of a block in addition to its row; below 0 if neighbouring blocks save each other work."""
    networks: int
    """Number of networks in the fit."""
    held_out: int
    """Number of other networks, on which the error is measured."""
    median_error: float
    """Median of |predicted / measured - 1| over the held-out networks."""
    rank_correlation: float
    """Spearman's, over the held-out networks."""


@dataclass(frozen=True)
class LatencyTable:
    """Rows by block, with the fit. `is_noisy`: other work ran on the machine during the measurement."""

    space: str
    setting: Setting
    rows: Mapping[Block, Row]
    fit: Fit
    references: Mapping[str, float] = field(default_factory=dict)
    """Latencies of well-known networks, ms, by name."""
    is_noisy: bool = False
    digest: str = field(default="", compare=False)
    """sha256 of the file that `write` makes; empty if the table was not read from a file."""

    def predict(self, spec: Spec) -> float:
        """Predicts the latency of a spec's network, ms.

        Raises: TableError: the network has a block that is not in the table.
        """
        blocks = blocks_of(spec)
        missing = [block for block in blocks if block not in self.rows]
        if missing:
            raise TableError("latency table", [f"no row for {missing[0]}, which the network has"])
        rows = sum(self.rows[block].ms for block in blocks)
        return self.fit.intercept_ms + self.fit.per_block_ms * len(blocks) + rows

    def predictor(self, network: Any, task: Task) -> Callable[[Any], float]:
        """Returns a function: architecture of the table's space -> latency, ms, at the size `network` for `task`."""
        return lambda architecture: self.predict(Spec(self.space, architecture, network, task))

    def write(self, path: Path) -> None:
        """Writes the table atomically."""
        write_text(path, self._text())

    def _text(self) -> str:
        document = {
            "schema": SCHEMA,
            "space": self.space,
            "setting": asdict(self.setting),
            "is_noisy": self.is_noisy,
            "fit": asdict(self.fit),
            "references": dict(self.references),
            "rows": write_rows(self.rows),
        }
        return json.dumps(document, indent=1) + "\n"


def read_table(path: Path) -> LatencyTable:
    """Reads a table. Raises: TableError: there is none at the path, or it is invalid."""
    document = read_json(path, TableError)
    problems = Problems(str(path))
    if not isinstance(document, Mapping):
        raise TableError(str(path), ["expected an object"])
    keys = ("schema", "space", "setting", "is_noisy", "fit", "references", "rows")
    check_keys(document, place="", required=keys, problems=problems)
    problems.raise_if_any(TableError)
    if document["schema"] != SCHEMA:
        raise TableError(str(path), [f"schema is {document['schema']!r}; this version reads {SCHEMA}: profile again"])
    setting = read_dataclass(Setting, document["setting"], place="setting", problems=problems)
    fit = read_dataclass(Fit, document["fit"], place="fit", problems=problems)
    rows = read_rows(document["rows"], problems)
    references = document["references"]
    if not isinstance(references, Mapping) or not all(type(ms) in (int, float) for ms in references.values()):
        problems.add("references must be an object of numbers")
    problems.raise_if_any(TableError)
    assert setting is not None
    assert fit is not None
    table = LatencyTable(
        space=document["space"],
        setting=setting,
        rows=rows,
        fit=fit,
        references=dict(references),
        is_noisy=bool(document["is_noisy"]),
    )
    return replace(table, digest=hashlib.sha256(table._text().encode()).hexdigest())


def write_rows(rows: Mapping[Block, Row]) -> list[dict[str, Any]]:
    """Returns the rows as JSON types, sorted by block."""
    return [{"block": list(block), **asdict(row)} for block, row in sorted(rows.items())]


def read_rows(rows: object, problems: Problems) -> dict[Block, Row]:
    """The inverse of `write_rows`; errors are added to `problems`."""
    if not isinstance(rows, list):
        problems.add("rows must be a list")
        return {}
    found = {}
    for position, entry in enumerate(rows):
        match entry:
            case {"block": [str() as operation, *sizes], **times} if _are_sizes(sizes):
                row = read_dataclass(Row, times, place=f"rows[{position}]", problems=problems)
                if row is not None:
                    found[Block(operation, *sizes)] = row
            case _:
                problems.add(f"rows[{position}] must have a block, {', '.join(Block._fields)}, and its times")
    return found


def _are_sizes(values: Sequence[object]) -> bool:
    return len(values) == len(Block._fields) - 1 and all(type(value) is int for value in values)


def check_setting(table: LatencyTable, here: Setting, *, source: str) -> None:
    """Raises: TableError: the table was made on another machine, or for another batch or number of threads."""
    problems = [
        f"made for {name} {getattr(table.setting, name)!r}, but here it is {getattr(here, name)!r}"
        for name in asdict(here)
        if getattr(table.setting, name) != getattr(here, name)
    ]
    if problems:
        raise TableError(source, [*problems, "make one for this: enas latency profile"])


def fit_networks(
    rows: Mapping[Block, Row], specs: Sequence[Spec], measured_ms: Sequence[float], *, held_out: int
) -> Fit:
    """Fits a and b by least squares of the relative error; measures the error on the last `held_out` networks.

    The fit excludes the held-out networks. measured_ms: latencies of the specs' networks, [n].
    """
    blocks = [blocks_of(spec) for spec in specs]
    times = np.asarray(measured_ms, dtype=float)  # [n]
    sums = np.array([sum(rows[block].ms for block in one) for one in blocks])  # [n]
    terms = np.stack([np.ones(len(specs)), [len(one) for one in blocks]], axis=1)  # [n, 2]
    fitted = slice(0, len(specs) - held_out)
    weights = 1 / times[fitted, None]
    solution = np.linalg.lstsq(terms[fitted] * weights, (times - sums)[fitted] * weights[:, 0], rcond=None)[0]
    others = slice(len(specs) - held_out, None)
    predicted = (terms @ solution + sums)[others]
    return Fit(
        intercept_ms=float(solution[0]),
        per_block_ms=float(solution[1]),
        networks=len(specs) - held_out,
        held_out=held_out,
        median_error=float(np.median(np.abs(predicted / times[others] - 1))),
        rank_correlation=_rank_correlation(predicted, times[others]),
    )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks of two scores of the same items."""
    places = [values.argsort().argsort().astype(float) for values in (first, second)]
    one, other = (values - values.mean() for values in places)
    return float((one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum()))
