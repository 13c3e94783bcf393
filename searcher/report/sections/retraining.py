"""How the network was trained from scratch, and the LSTM beside a recurrent cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import Stage
from searcher.report.sections.elements import line_charts, progress, quoted, table_of, versions


def retraining_section(run: Path, retrain: Stage, peer: Stage, figures: Figures) -> Iterator[str]:
    """The retraining's result and curves, or the command that begins it."""
    command = f"enas retrain {quoted(run)}"
    if not retrain.begun:
        yield html.missing("The network has not been trained from scratch yet", command)
        return
    result, metric = retrain.summary, figures.metric
    chosen_by = result.get("valid_balanced_accuracy")  # only if it chooses the epoch
    yield html.facts(
        [
            (f"test {metric}", figures.written(result.get(f"test_{metric}"), digits=2)),
            (f"test {figures.unit}s", values.count(result.get("test_count"))),
            ("best validation balanced accuracy", figures.written(chosen_by, digits=2)),
            (
                f"{'best ' if chosen_by is None else ''}validation {metric}",
                figures.written(result.get(f"valid_{metric}"), digits=2),
            ),
            ("in epoch", result.get("best_epoch")),
            ("kept", {"average": "the weights' average", "weights": "the weights"}.get(str(result.get("kept")))),
            ("parameters", values.count(result.get("parameters"))),
            ("preset", retrain.config.get("preset")),
            ("seed", retrain.config.get("seed")),
            ("epochs", progress(retrain)),
            ("time", values.duration(result.get("seconds"))),
            ("device", result.get("device")),
        ]
    )
    if not result:
        yield html.missing("The retraining is not finished", f"{command} --resume")
    if peer.begun:
        yield from _peer(retrain, peer, figures, command=command)
    curves = [
        retrain.series("validation", f"valid_{metric}"),
        retrain.series("train", f"train_{metric}", dashed=True),
        peer.series("LSTM, validation", f"valid_{metric}"),
    ]
    yield line_charts(
        [
            (metric.capitalize(), "of the images" if figures.percent else "less is better", figures.percent, curves),
            ("Training loss", f"nats per {figures.unit}", False, [retrain.series("loss", "loss")]),
            ("Learning rate", "", False, [retrain.series("rate", "learning_rate")]),
        ]
    )
    yield versions(result)


def _peer(retrain: Stage, peer: Stage, figures: Figures, *, command: str) -> Iterator[str]:
    """The table that compares the cell with the LSTM."""
    if not peer.summary:
        yield html.missing("The LSTM to compare with is not trained to its end", f"{command} --resume")
        return
    yield "<p>Beside the cell, torch's LSTM with as many parameters, trained in the same way:</p>"
    yield table_of(
        [
            {
                "network": name,
                f"test {figures.metric}": figures.written(stage.summary.get(f"test_{figures.metric}")),
                f"validation {figures.metric}": figures.written(stage.summary.get(f"valid_{figures.metric}")),
                "parameters": stage.summary.get("parameters"),
                "epoch chosen": stage.summary.get("best_epoch"),
                "time": values.duration(stage.summary.get("seconds")),
            }
            for name, stage in (("the cell", retrain), ("LSTM", peer))
        ]
    )
