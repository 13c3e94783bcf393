"""`enas evaluate` and `enas predict`.

numpy and onnxruntime take longer to import than `--help` may take to appear: each command imports what it runs with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from runtime.options import PATH, OptionError, command_line, json_option, provider_option

if TYPE_CHECKING:
    from datasets.store import ImageStore
    from runtime.evaluate import Evaluation
    from runtime.model import Model
    from runtime.providers import Provider

_PREDICT_BATCH = 64


def _announced(model: Model) -> Model:
    """Say on stderr where a model runs."""
    session = model.session
    click.echo(f"runs on {session.describe()}" + (f" ({session.remark})" if session.remark else ""), err=True)
    return model


# --- evaluate ---------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", type=PATH)
@click.option("--dataset", metavar="NAME", show_default="the one it was trained on", help="A data set's name or file.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="test", help="Its part to score.")
@click.option("--batch-size", "-b", type=click.IntRange(min=1), default=64, help="Images a call.")
@provider_option
@json_option
def evaluate(
    *, model: Path, dataset: str | None, split: str, batch_size: int, provider: Provider, as_json: bool
) -> None:
    """Score an exported model on a data set.

    MODEL is a model file or a run directory. Prints the accuracy with its 95 % interval, and class by class.
    """
    from datasets import catalog
    from runtime.evaluate import evaluate as score
    from runtime.model import Model
    from runtime.progress import progress

    opened = _announced(Model.open(model, provider=provider))
    store = catalog.load(dataset or _trained_on(opened))
    if store.kind != "images":
        raise OptionError(f"{store.name} is a data set of {store.kind}, but {model} classifies images")
    count = store.counts.get(split, 0)
    with progress(f"scoring {count:,} images of {store.name}, {split}", total=count) as advance:
        result = score(opened, store=store, split=split, batch_size=batch_size, advance=advance)
    if as_json:
        click.echo(json.dumps(_evaluation_document(result, model=opened, store=store, split=split)))
    else:
        click.echo(_evaluation_text(result, model=opened, store=store, split=split))


def _trained_on(model: Model) -> str:
    match model.metadata:
        case {"spec": {"task": {"dataset": str(name)}}}:
            return name
    raise OptionError(f"{model.path} does not say what it was trained on: name a data set with --dataset")


def _evaluation_document(result: Evaluation, *, model: Model, store: ImageStore, split: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "evaluation",
        "command": command_line(),
        "file": str(model.path),
        "sha256": model.sha256,
        "providers": list(model.session.providers),
        "dataset": {"name": store.name, "split": split, "sha256": store.sha256[split]},
        "count": result.count,
        "correct": result.correct,
        "accuracy": asdict(result.accuracy),
        "classes": [asdict(score) for score in result.per_class],
        "confusion": result.confusion.tolist(),
    }


def _evaluation_text(result: Evaluation, *, model: Model, store: ImageStore, split: str) -> str:
    from runtime.tables import ABSENT, aligned

    def percent(value: float | None) -> str:
        return ABSENT if value is None else f"{value:.1%}"

    rows = []
    for score, mistakes in zip(result.per_class, result.mistakes, strict=True):
        taken_for = ", ".join(f"{name} {count}" for name, count in mistakes[:3])
        rows.append([score.name, f"{score.count:,}", percent(score.recall), percent(score.precision), taken_for])
    interval = result.accuracy.interval
    assert interval is not None
    return "\n".join(
        [
            f"{model.path} · sha256 {model.sha256[:12]}",
            f"{store.name}, {split}: accuracy {result.accuracy.value:.2%} "
            f"(95 % interval {interval.low:.2%} – {interval.high:.2%}, {result.correct:,} of {result.count:,} images)",
            "",
            aligned(["class", "images", "recall", "precision", "  most often taken for"], rows, left=(0, 4)),
        ]
    )


# --- predict ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", type=PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes to name for every picture.")
@provider_option
@json_option
def predict(*, model: Path, images: tuple[Path, ...], top: int, provider: Provider, as_json: bool) -> None:
    """Classify picture files (PNG or JPEG).

    MODEL is a model file or a run directory; pictures are prepared as the model says.
    """
    import numpy as np

    from runtime.images import prepare
    from runtime.model import Model

    opened = _announced(Model.open(model, provider=provider))
    predictions = []
    for start in range(0, len(images), _PREDICT_BATCH):
        paths = images[start : start + _PREDICT_BATCH]
        pictures = np.stack([prepare(path, preprocess=opened.preprocess) for path in paths])  # [B, H, W, C]
        for path, probabilities in zip(paths, opened.predict(pictures).probabilities, strict=True):
            best = probabilities.argsort()[::-1][:top]
            predictions.append((path, [(opened.classes[k], float(probabilities[k])) for k in best]))
    if as_json:
        click.echo(json.dumps(_predictions_document(predictions, model=opened)))
    else:
        click.echo(_predictions_text(predictions))


_Prediction: TypeAlias = tuple[Path, list[tuple[str, float]]]
"""A picture with its likeliest classes and their probabilities."""


def _predictions_document(predictions: Sequence[_Prediction], *, model: Model) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "predictions",
        "file": str(model.path),
        "sha256": model.sha256,
        "predictions": [
            {"image": str(path), "classes": [{"class": name, "probability": value} for name, value in best]}
            for path, best in predictions
        ],
    }


def _predictions_text(predictions: Sequence[_Prediction]) -> str:
    width = max(len(str(path)) for path, _ in predictions)
    return "\n".join(
        f"{path!s:{width}}  " + "  ".join(f"{name} {value:.1%}" for name, value in best) for path, best in predictions
    )
