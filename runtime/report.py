"""How a benchmark is written down: a document for programs, a table for people, Markdown for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from runtime import statistics
from runtime.model import Model
from runtime.statistics import Estimate, Interval
from runtime.sweep import Point, Sweep
from runtime.tables import ABSENT, aligned

_SCHEMA = 1
# The percentiles of the table; the document has all.
_SHOWN = (0.90, 0.99)


# --- for programs -----------------------------------------------------------------------------------------------------


def document(sweep: Sweep, *, command: Sequence[str]) -> dict[str, Any]:
    """Everything of a benchmark, each sample included, as JSON types."""
    return {
        "schema": _SCHEMA,
        "kind": "benchmark",
        "scenario": "single-stream",
        "command": list(command),
        "started": sweep.started.isoformat(timespec="seconds"),
        "is_partial": sweep.is_partial,
        "disturbances": sweep.disturbances(),
        "percentile_rule": {
            "value": "the ceil(q * n)-th smallest of n samples",
            "fewest_samples": {_percentile(q): statistics.fewest_samples(q) for q in statistics.PERCENTILES},
        },
        "intra_op_threads": sweep.threads,
        "seed": sweep.seed,
        "plan": asdict(sweep.plan),
        "machine": asdict(sweep.machine),
        "activity": asdict(sweep.activity),
        "baseline": sweep.baseline,
        "models": [{"name": name, **_describe_model(model)} for name, model in sweep.models.items()],
        "points": [_describe_point(point) for point in sweep.points],
    }


def _describe_model(model: Model) -> dict[str, Any]:
    return {
        "file": str(model.path),
        "sha256": model.sha256,
        "bytes": model.num_bytes,
        "input": {"name": "images", "dtype": "uint8", "shape": ["batch", *model.image_shape]},
        "providers": list(model.session.providers),
        "nodes": dict(model.session.nodes),
        "provider_remark": model.session.remark,
        "load_ms": model.session.load_ms,
        **{key: model.metadata.get(key) for key in ("precision", "accuracy", "producer")},
    }


def _describe_point(point: Point) -> dict[str, Any]:
    series, samples = point.series, point.series.samples_ms
    described: dict[str, Any] = {
        "name": series.name,
        "batch_size": point.batch_size,
        "first_ms": series.first_ms,
        "warm_up": None if series.warm_up is None else asdict(series.warm_up),
        "count": int(samples.size),
    }
    if samples.size:
        described |= {
            "median_ms": asdict(statistics.median(samples)),
            "mean_ms": float(samples.mean()),
            "percentiles_ms": {
                _percentile(q): None if estimate is None else asdict(estimate)
                for q, estimate in statistics.percentiles(samples).items()
            },
            "spread": statistics.spread(samples),
            "images_per_s": point.images_per_s,
            "speed": None if point.speed is None else asdict(point.speed),
        }
    # Turn by turn: turn i of every contestant of a batch size belongs to round i.
    return described | {"samples_ms": [[ns / 1e6 for ns in turn] for turn in series.turns]}


# --- for people -------------------------------------------------------------------------------------------------------


def text(sweep: Sweep) -> str:
    """What was measured on which machine, the table, and what to make of it."""
    parts = ["\n".join(_conditions(sweep)), aligned(*_cells(sweep)), "\n".join(_remarks(sweep))]
    return "\n\n".join(part for part in parts if part)


def markdown(sweep: Sweep) -> str:
    """The same for a page: the table first, its conditions below."""
    header, rows = _cells(sweep)
    table = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([*lines, "", *(f"- {line}" for line in [*_conditions(sweep), *_remarks(sweep)]), ""])


def _conditions(sweep: Sweep) -> list[str]:
    models = [f"{name}: {_model_line(model)}" for name, model in sweep.models.items()]
    remarks = dict.fromkeys(model.session.remark for model in sweep.models.values() if model.session.remark)
    how = f"{sweep.threads} intra-op threads, random images, one call at a time"
    return [*models, *remarks, sweep.machine.describe(), how]


def _model_line(model: Model) -> str:
    """Size, hash, precision, accuracy and where it runs, in one line."""
    parts = [f"{model.num_bytes / 1e3:,.0f} kB", f"sha256 {model.sha256[:12]}"]
    match model.metadata:
        case {"precision": str(precision)}:
            parts.append(precision)
    match model.metadata:
        case {"accuracy": {"split": split, "value": float(value), "count": int(count)}}:
            parts.append(f"accuracy {value:.2%} ({split}, {count:,} images)")
    return " · ".join([*parts, f"opens in {_number(model.session.load_ms)} ms, runs on {model.session.describe()}"])


def _cells(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    header = ["", "batch", "first ms", "median ms", "95 % interval", *(f"{_percentile(q)} ms" for q in _SHOWN)]
    header += ["images/s", "samples"]
    if sweep.baseline is not None:
        header.append(f"speed vs {sweep.baseline}")
    rows = []
    for point in sweep.points:
        series, samples = point.series, point.series.samples_ms
        row = [series.name, str(point.batch_size), _number(series.first_ms)]
        if samples.size:
            middle, tails = statistics.median(samples), statistics.percentiles(samples)
            row += [_number(middle.value), _interval(middle.interval), *(_value(tails[q]) for q in _SHOWN)]
            row += [f"{point.images_per_s:,.0f}", f"{samples.size:,}"]
        else:
            row += [ABSENT] * (len(_SHOWN) + 3) + ["0"]
        if sweep.baseline is not None:
            row.append("1" if series.name == sweep.baseline else _speed(point.speed))
        rows.append(row)
    return header, rows


def _remarks(sweep: Sweep) -> list[str]:
    lines = ["PARTIAL: interrupted; these are the samples taken until then."] if sweep.is_partial else []
    if disturbances := sweep.disturbances():
        lines.append(f"NOISY: {'; '.join(disturbances)}.")
    if any(not statistics.supports(point.series.samples_ms.size, max(_SHOWN)) for point in sweep.points):
        needed = ", ".join(f"{_percentile(q)} takes {statistics.fewest_samples(q)}" for q in _SHOWN)
        lines.append(f"{ABSENT} too few samples ({needed}): a longer --duration gives more.")
    return lines


def _percentile(q: float) -> str:
    return f"p{q * 100:g}"


def _number(value: float | None) -> str:
    """Three significant digits, and all that stand before the point."""
    if value is None:
        return ABSENT
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


def _value(estimate: Estimate | None) -> str:
    return _number(None if estimate is None else estimate.value)


def _interval(interval: Interval | None) -> str:
    return ABSENT if interval is None else f"{_number(interval.low)} – {_number(interval.high)}"


def _speed(speed: Estimate | None) -> str:
    if speed is None:
        return ABSENT
    interval = speed.interval
    return f"{speed.value:.2f}×" + ("" if interval is None else f" ({interval.low:.2f} – {interval.high:.2f})")
