"""`enas evaluate` and `enas predict`.

numpy and onnxruntime take longer to import than `--help` may take to appear: each command imports what it runs with.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import json_option
from foundation.options import OptionError
from runtime.commands.options import PATH, announced, command_line, provider_option

if TYPE_CHECKING:
    from datasets.store import ImageStore, TextStore
    from runtime.models.artifact import Artifact
    from runtime.models.language_model import LanguageModel
    from runtime.models.model import Model
    from runtime.models.providers import Provider
    from runtime.scoring.evaluate import Evaluation

_BATCH_SIZE = 64


# --- evaluate ---------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", type=PATH)
@click.option("--dataset", metavar="NAME", show_default="the one it was trained on", help="A data set's name or file.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="test", help="Its part to score.")
@click.option("--batch-size", "-b", type=click.IntRange(min=1), show_default=str(_BATCH_SIZE), help="Images a call.")
@provider_option
@json_option
@click.option(
    "--export-plots",
    "plots",
    type=click.Path(path_type=Path, file_okay=False),
    help="Draw the confusion matrix as an SVG file in this directory.",
)
def evaluate(
    *,
    model: Path,
    dataset: str | None,
    split: str,
    batch_size: int | None,
    provider: Provider,
    as_json: bool,
    plots: Path | None,
) -> None:
    """Score an exported model on a data set.

    MODEL is a model file or a run directory. Prints the accuracy with its 95 % interval, how well calibrated its
    probabilities are, and class by class; of a language model, the perplexity.
    """
    from datasets import catalog
    from datasets.store import ImageStore, StoreError, TextStore
    from runtime.models.kinds import open_model
    from runtime.models.language_model import LanguageModel
    from runtime.models.model import Model

    opened = announced(open_model(_file_to_score(model), provider=provider))
    name = dataset or _trained_on(opened)
    if name is None:
        raise OptionError(f"{opened.path} does not say what it was trained on: name a data set with --dataset")
    if dataset is None:
        catalog.check_is_here(name, named_by=f"{opened.path} was trained on")
    store = catalog.load(name)
    changed = _changed(store, opened, name=name)
    if changed and dataset is None:
        raise StoreError(f"{changed}; `--dataset {shlex.quote(name)}` scores it all the same")
    if isinstance(opened, Model) and isinstance(store, ImageStore):
        result = _score_images(opened, store=store, split=split, batch_size=batch_size or _BATCH_SIZE)
        fields, text = _image_fields(result), _image_text(result)
        if plots is not None:
            _draw_confusion(result, plots / "confusion.svg", title=f"{store.name}, {split}")
    elif isinstance(opened, LanguageModel) and isinstance(store, TextStore):
        if batch_size is not None:
            raise OptionError("--batch-size is of images; a text is read in as many streams as while training")
        if plots is not None:
            raise OptionError("--export-plots draws classes that are confused; a language model has none")
        fields, text = _score_text(opened, store=store, split=split)
    else:
        raise OptionError(f"{store.name} is a data set of {store.kind}, but {opened.path} is {opened.kind}")
    if as_json:
        document = {
            "schema": 1,
            "kind": "evaluation",
            "command": command_line(),
            "file": str(opened.path),
            "sha256": opened.sha256,
            "providers": list(opened.session.providers),
            "dataset": {
                "name": store.name,
                "split": split,
                "sha256": store.sha256[split],
                "has_changed": None if _trained_on_sha256(opened) is None else changed is not None,
            },
            **fields,
        }
        click.echo(json.dumps(document))
    else:
        note = f"note: {changed}\n" if changed else ""
        click.echo(f"{opened.path} · sha256 {opened.sha256[:12]}\n{note}{store.name}, {split}: {text}")


def _file_to_score(model: Path) -> Path:
    """A run's file of whole sequences, if it has one: the same perplexity as of single steps, sooner."""
    from runtime.models.artifact import SEQUENCE_MODEL

    return model / SEQUENCE_MODEL if (model / SEQUENCE_MODEL).exists() else model


def _trained_on(model: Artifact) -> str | None:
    """The data set's name, if the model says it."""
    match model.metadata:
        case {"spec": {"task": {"dataset": str(name)}}}:
            return name
    return None


def _trained_on_sha256(model: Artifact) -> str | None:
    """Of the data set, if the model says it, as those of earlier versions do not."""
    match model.metadata:
        case {"producer": {"dataset_sha256": str(digest)}}:
            return digest
    return None


def _changed(store: ImageStore | TextStore, model: Artifact, *, name: str) -> str | None:
    """A word if the model is known to be trained on other data of that name: what is scored may be among them."""
    trained_on, digest = _trained_on(model), _trained_on_sha256(model)
    if digest in (None, store.digest) or trained_on not in (name, store.name):
        return None
    return (
        f"the data set {trained_on} is no longer the one that {model.path} was trained on, so what it is scored on may "
        "be what it has learnt"
    )


def _score_images(model: Model, *, store: ImageStore, split: str, batch_size: int) -> Evaluation:
    from foundation.progress import progress
    from runtime.scoring.evaluate import evaluate as score

    count = store.counts.get(split, 0)
    with progress(f"scoring {count:,} images of {store.name}, {split}", total=count) as advance:
        return score(model, store=store, split=split, batch_size=batch_size, advance=advance)


def _image_fields(result: Evaluation) -> dict[str, Any]:
    calibration = result.calibration
    return {
        "count": result.count,
        "correct": result.correct,
        "accuracy": asdict(result.accuracy),
        "balanced_accuracy": result.balanced_accuracy,
        "calibration": {
            "error": calibration.error,
            "bins": [
                {"count": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
                for count, confidence, accuracy in zip(
                    calibration.counts, calibration.confidence, calibration.accuracy, strict=True
                )
            ],
        },
        "classes": [asdict(score) for score in result.per_class],
        "confusion": result.confusion.tolist(),
    }


def _image_text(result: Evaluation) -> str:
    from foundation.text import listed

    interval = result.accuracy.interval
    assert interval is not None
    balanced = f", balanced accuracy {result.balanced_accuracy:.2%} (mean recall)" if result.is_unequal else ""
    absent = f"\nno image of {listed(result.absent)}: nothing here speaks for them" if result.absent else ""
    return (
        f"accuracy {result.accuracy.value:.2%} (95 % interval {interval.low:.2%} – {interval.high:.2%}, "
        f"{result.correct:,} of {result.count:,} images){balanced}, calibration error {result.calibration.error:.2%}"
        f"{absent}\n\n{_class_table(result)}"
    )


def _draw_confusion(result: Evaluation, path: Path, *, title: str) -> None:
    from charts.matrix import matrix_chart
    from foundation.files import write_text

    picture = matrix_chart(
        result.confusion.tolist(),
        result.classes,
        title=f"Confusion: {title}",
        row_label="what images are",
        column_label="what the model says",
    )
    write_text(path, picture + "\n")
    click.echo(f"drawn in {path}", err=True)


def _class_table(result: Evaluation) -> str:
    from foundation.tables import ABSENT, aligned
    from foundation.text import printable

    def percent(value: float | None) -> str:
        return ABSENT if value is None else f"{value:.1%}"

    rows = []
    for score, mistakes in zip(result.per_class, result.mistakes, strict=True):
        taken_for = ", ".join(f"{printable(name)} {count}" for name, count in mistakes[:3])
        rows.append(
            [printable(score.name), f"{score.count:,}", percent(score.recall), percent(score.precision), taken_for]
        )
    return aligned(["class", "images", "recall", "precision", "  most often taken for"], rows, left=(0, 4))


def _score_text(model: LanguageModel, *, store: TextStore, split: str) -> tuple[dict[str, Any], str]:
    """What a program reads, and what a person reads."""
    from datasets.tokens import UNITS
    from foundation.progress import progress
    from runtime.models.language_model import StepModel
    from runtime.scoring.perplexity import evaluate_text

    unit = UNITS[model.tokenizer.tokens]
    count = max(store.counts.get(split, 0) - 1, 0)
    pace = ", one at a time" if isinstance(model, StepModel) else ""
    with progress(f"scoring {count:,} {unit} of {store.name}, {split}{pace}", total=count) as advance:
        result = evaluate_text(model, store=store, split=split, advance=advance)
    fields = {
        "count": result.count,
        "unit": unit,
        "perplexity": result.perplexity,
        "bits_per_token": result.bits_per_token,
        "nll": result.nll,
    }
    return (
        fields,
        f"perplexity {result.perplexity:.2f} ({result.bits_per_token:.3f} bits a token, {result.count:,} {unit})",
    )


# --- predict ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", type=PATH)
@click.argument("images", metavar="IMAGE|FOLDER...", nargs=-1, required=True, type=PATH)
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes to name for every picture.")
@provider_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout, a row a picture.")
def predict(
    *, model: Path, images: tuple[Path, ...], top: int, provider: Provider, as_json: bool, as_csv: bool
) -> None:
    """Classify picture files, or all pictures of a folder.

    MODEL is a model file or a run directory; pictures are prepared as the model says. Those that cannot be read are
    named on stderr; the others have their results, and the exit code is 1.
    """
    from foundation.progress import steps
    from foundation.text import printable
    from runtime.models.kinds import open_model
    from runtime.models.model import Model
    from runtime.scoring.predictions import Failure, as_table, as_text, document, find_pictures, predictions

    if as_json and as_csv:
        raise OptionError("--json and --csv: only one of them")
    opened = open_model(model, provider=provider)
    if not isinstance(opened, Model):
        raise OptionError(f"{opened.path} is {opened.kind}: use `enas generate`")
    announced(opened)
    top = min(top, len(opened.classes))
    problems: list[tuple[str, str]] = []
    files = find_pictures(images, problems)
    failures = [Failure(path, reason) for path, reason in problems]
    answers = []
    with steps("classifying", total=len(files), unit="picture") as step:
        for outcome in predictions(opened, files, top=top):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                answers.append(outcome)
            step()
    for answer in answers:
        if answer.remark:
            click.echo(printable(f"{answer.image}: {answer.remark}"), err=True)
    if as_json:
        click.echo(json.dumps(document(answers, failures, model=opened)))
    elif answers:
        click.echo(as_table(answers, top=top) if as_csv else as_text(answers), nl=not as_csv)
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    if failures:
        raise click.exceptions.Exit(1)
