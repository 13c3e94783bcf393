"""The exported model: whether it agrees with torch, its other forms, and its speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.files import sha256_of
from searcher.lineage import are_variants_current
from searcher.report import html, values
from searcher.report.run_files import read_object, table_in
from searcher.report.sections.elements import quoted, scalars, table_of


def verification_section(run: Path) -> Iterator[str]:
    """The comparisons with torch and their results."""
    failed = read_object(run / "verification-failed.json")
    document = read_object(run / "verification.json")
    if not failed and not document:
        yield html.missing("No model has been exported and verified yet", f"enas export {quoted(run)}")
    if failed:
        yield "<p>The last export was refused, because its answers are not those of the trained network:</p>"
        yield from _verification_of(failed)
    if document:
        yield from _verification_of(document)


def _verification_of(document: Mapping[str, Any]) -> Iterator[str]:
    if "passed" in document:
        yield f"<p>{html.verdict(bool(document['passed']))}: onnxruntime against torch on the same inputs.</p>"
    yield scalars(document, leave_out=("passed",))
    rows = [
        {key: values.percent(value, digits=2) if key.endswith("accuracy") else value for key, value in row.items()}
        for row in document.get("comparisons", [])
        if isinstance(row, Mapping)
    ]
    yield table_of(rows)


def variants_section(run: Path) -> Iterator[str]:
    """The other forms of the run's model that were tried, and why each was kept or not; nothing if none was."""
    trials = read_object(run / "variants.json").get("trials", []) if are_variants_current(run) else []
    if rows := [_trial_row(trial) for trial in trials if isinstance(trial, Mapping)]:
        yield html.section("Other forms", [table_of(rows)])


def _trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    shares = {"valid": "accuracy", "float32 on valid": "base_accuracy", "test": "test_accuracy"}
    return {
        "form": trial.get("name"),
        "settings": trial.get("settings"),
        **{title: values.percent(trial.get(key), digits=2) for title, key in shares.items()},
        "bytes": trial.get("num_bytes"),
        "ms": trial.get("ms"),
        "float32's ms": trial.get("base_ms"),
        "kept": "yes" if trial.get("kept") else "no",
        "why": trial.get("reason"),
    }


def benchmark_section(run: Path) -> Iterator[str]:
    """The measured speed of the model."""
    document = read_object(run / "benchmark.json")
    if not document:
        yield html.missing("The model's speed has not been measured yet", f"enas benchmark {quoted(run)}")
        return
    if _is_of_another_model(document, run / "model.onnx"):
        yield html.missing("The benchmark here is of an earlier model", f"enas benchmark {quoted(run)}")
        return
    if document.get("is_partial"):
        yield "<p>The benchmark was interrupted: these are the samples taken until then.</p>"
    rows = [_benchmark_row(point) for point in document.get("points", []) if isinstance(point, Mapping)]
    yield table_of(rows)
    if failures := document.get("failures"):
        yield f'<p class="bad">Failed: {html.escaped("; ".join(map(str, failures)))}.</p>'
    if disturbances := document.get("disturbances"):
        yield f'<p class="bad">Noisy: {html.escaped("; ".join(map(str, disturbances)))}.</p>'
    machine = table_in(document, "machine")
    yield html.facts(
        [
            ("CPU", machine.get("cpu")),
            ("cores", machine.get("usable_cores")),
            ("measured", document.get("started")),
            *table_in(machine, "versions").items(),
        ]
    )


def _is_of_another_model(benchmark: Mapping[str, Any], model: Path) -> bool:
    """Whether the model exists, but is not among the files that the benchmark records; False if it records none."""
    measured = {one.get("sha256") for one in benchmark.get("models", []) if isinstance(one, Mapping)} - {None}
    return bool(measured) and model.exists() and sha256_of(model) not in measured


def _benchmark_row(point: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the command's own table; values missing from a point stay empty."""
    median = point.get("median_ms")
    interval = table_in(median, "interval") if isinstance(median, Mapping) else {}
    percentiles = table_in(point, "percentiles_ms")
    written = [values.three_digits(interval.get(end)) or "" for end in ("low", "high")]
    return {
        "model": point.get("name"),
        "scenario": point.get("scenario"),
        "batch": point.get("batch_size"),
        "threads": point.get("intra_op_threads"),
        "median ms": values.three_digits(_value(median)),
        "95 % interval": " – ".join(written) if all(written) else None,
        **{f"{name} ms": values.three_digits(_value(percentiles.get(name))) for name in ("p90", "p99")},
        "items/s": values.three_digits(_value(point.get("items_per_s"))),
        "samples": point.get("count"),
    }


def _value(entry: object) -> object:
    """The value of an estimate, which is written as a plain number or as a table with value and interval."""
    return entry.get("value") if isinstance(entry, Mapping) else entry
