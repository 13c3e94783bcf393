"""Elements that several sections use: charts, tables, and values from the run's files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from charts.curves import Series, line_chart
from foundation.tables import ABSENT
from searcher.report import html, values
from searcher.report.run_files import Stage, table_in


def line_charts(charts: Iterable[tuple[str, str, bool, Sequence[Series]]]) -> str:
    """Draws the charts (title, y label, whether in per cent, series) that have at least one recorded point."""
    drawn = [
        line_chart(series, title=title, x_label="epoch", y_label=label, percent=percent)
        for title, label, percent, series in charts
        if any(one.points for one in series)
    ]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for every key that has a plain value in some row; keys are in order of appearance."""
    shown = dict.fromkeys(k for row in rows for k, v in row.items() if not isinstance(v, list | dict | None))
    keys = [key for key in dict.fromkeys(k for row in rows for k in row) if key in shown]
    if not keys:
        return ""
    return html.table(
        [html.escaped(key.replace("_", " ")) for key in keys], [[_cell(row.get(k)) for k in keys] for row in rows]
    )


def scalars(document: Mapping[str, Any], *, leave_out: Sequence[str] = ()) -> str:
    """All plain values of a document and of the tables directly in it."""
    found: list[tuple[str, object]] = []
    for key, value in document.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, entry in inner:
            if key not in leave_out and isinstance(entry, str | int | float | bool):
                found.append((f"{key} {name}".strip().replace("_", " "), values.plain(entry)))
    return html.facts(found)


def _cell(value: object) -> str:
    """A value as a table's markup."""
    if value is None:
        return ABSENT
    return html.verdict(value) if isinstance(value, bool) else html.escaped(values.plain(value))


def versions(summary: Mapping[str, Any]) -> str:
    """The software versions that a stage ran with, as a line."""
    found = table_in(summary, "versions")
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    return f'<p class="muted">With {html.escaped(listed)}.</p>' if found else ""


def progress(stage: Stage) -> str | None:
    """Epochs done and epochs planned, `3 of 10`; None if no number is planned."""
    planned = stage.config.get("num_epochs")
    return None if planned is None else f"{len(stage.records)} of {planned}"


def numbers(found: object) -> list[float]:
    """The numbers in a list; empty if `found` is not a list."""
    return [value for value in found if isinstance(value, int | float)] if isinstance(found, list) else []


def quoted(run: Path) -> str:
    """A run's path, quoted for a command line."""
    return shlex.quote(str(run))
