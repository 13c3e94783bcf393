"""The comparison of the found network with random ones and known ones of the same latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charts.marks import Group, Mark, mark_chart
from foundation.document import DocumentError
from searcher.arch.catalog import find_spec
from searcher.arch.spec import spec_digest
from searcher.lineage import is_retraining_outdated
from searcher.report import html, values
from searcher.report.run_files import read_object
from searcher.report.sections.elements import table_of

# With fewer, one image is more than half a point, by which networks of the same latency typically differ.
_FEW_IMAGES = 200
# Drawn in this order: the found one lies on top.
_GROUPS = {"random": "random", "reference": "references", "found": "found"}


def comparison_section(run: Path) -> Iterator[str]:
    """The result of training the found network and its rivals alike; nothing if it is not about the run's network.

    Raises: DocumentError: `comparison.json` is damaged.
    """
    document = read_object(run / "comparison.json")
    if not document or document.get("spec_sha256") != _digest(run):
        return
    try:
        yield html.section("Comparison", list(_parts(document)))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DocumentError(str(run / "comparison.json"), ["not what `enas compare` writes"]) from None


def caveats(document: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be concluded from a comparison's test split and seeds."""
    count = document["test_count"]
    if count < _FEW_IMAGES:
        yield (
            f"the test split has {count} images, each {100 / count:.2g} points: too few to tell networks apart; "
            "--test-dataset scores on another store's"
        )
    if document["seeds"] == 1:
        yield "one seed tells nothing of what another would give: intervals are of the images alone; take --seeds 3"


def _digest(run: Path) -> str | None:
    """Digest of the run's network at its retrained size, or, if it is not retrained, at its own."""
    paths = [run / "spec.json"] if is_retraining_outdated(run) else [run / "retrain" / "spec.json", run / "spec.json"]
    return next((spec_digest(find_spec(path)) for path in paths if path.exists()), None)


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    rows = document["networks"]
    seeds, draws = (
        ("1 seed", "images") if document["seeds"] == 1 else (f"{document['seeds']} seeds", "seeds and images")
    )
    yield (
        f"<p>The found network, random ones of its space and known ones, scaled in width until onnxruntime takes the "
        f"same time for them (batch {document['latency_batch']}, threads: {document['latency_threads']}), trained "
        f"alike for {document['epochs']} epochs on {html.escaped(document['dataset'])} with {seeds} "
        f"each, and scored on {document['test_count']:,} test images of {html.escaped(document['test_dataset'])}. "
        f"Intervals are at 95 %, over {draws}.</p>"
    )
    for caveat in caveats(document):
        yield f'<p class="bad">{html.escaped(caveat[0].upper() + caveat[1:])}.</p>'
    yield f'<div class="charts">{_chart(rows)}</div>'
    yield table_of([_row(row) for row in sorted(rows, key=lambda row: -row["test_accuracy"]["value"])])
    if document["differences"]:
        yield table_of(
            [
                {
                    "found less": f"{one['less']} ({one['name']})",
                    "points": f"{100 * one['value']:+.2f}",
                    "95 % interval": " to ".join(f"{100 * one['interval'][end]:+.2f}" for end in ("low", "high")),
                }
                for one in document["differences"]
            ]
        )
    for one in document["spreads"]:
        spread = (
            f"{one['pool']}: accuracies spread by {100 * one['deviation']:.2f} points (standard deviation); those of "
            f"equally good networks would by {100 * one['noise']:.2f}"
        )
        yield f"<p>{html.escaped(spread)}{': nothing to rank' if one['nothing_to_rank'] else ''}.</p>"
    for one in document["left_out"]:
        yield f'<p class="muted">Left out: {html.escaped(one["name"])}: {html.escaped(one["reason"])}.</p>'
    if document["disturbances"]:
        yield f'<p class="bad">Noisy latencies: {html.escaped("; ".join(document["disturbances"]))}.</p>'
    yield f'<p class="muted">Latencies measured on {html.escaped(document["cpu"])}.</p>'


def _chart(rows: list[Mapping[str, Any]]) -> str:
    groups = [
        Group(name, [_mark(row) for row in rows if row["kind"] == kind], is_joined=False)
        for kind, name in _GROUPS.items()
        if any(row["kind"] == kind for row in rows)
    ]
    return mark_chart(
        groups,
        title="Test accuracy against latency",
        x_label="latency of a call, 10th percentile, ms",
        y_label="test accuracy",
        y_is_log=False,
        y_percent=True,
    )


def _mark(row: Mapping[str, Any]) -> Mark:
    latency, test = row["latency_ms"], row["test_accuracy"]
    return Mark(latency["value"], test["value"], _range(latency["interval"]), _range(test["interval"]))


def _range(interval: Mapping[str, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval["low"], interval["high"])


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    test = row["test_accuracy"]
    return {
        "network": row["name"],
        "test accuracy": values.percent(test["value"], digits=2),
        "95 % interval": " to ".join(values.percent(test["interval"][end], digits=2) or "" for end in ("low", "high")),
        "validation accuracy": values.percent(row["valid_accuracy"], digits=2),
        "latency, ms": values.three_digits(row["latency_ms"]["value"]),
        "of the found one's": values.decimal(row["latency_ratio"]["value"]),
        "parameters": values.count(row["parameters"]),
        "multiply-adds": values.count(row["multiply_adds"]),
    }
