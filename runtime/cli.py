"""`enas benchmark`, `enas evaluate` and `enas predict`.

numpy and onnxruntime take longer to import than `--help` may take to appear: each command imports what it runs with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import click

from datasets.files import write_text

if TYPE_CHECKING:
    import numpy as np

    from datasets.store import ImageStore
    from runtime.evaluate import Evaluation
    from runtime.model import Model
    from runtime.providers import Provider

_INTERRUPTED = 130
_TORCH = "torch eager"
_PREDICT_BATCH = 64


class OptionError(ValueError):
    """Options that do not go together, or not with these files."""


class Peers(Protocol):
    """What a model may be compared with; handed in by the command line, so that nothing here imports torch."""

    def torch_eager(self, run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]: ...


class _BatchSizes(click.ParamType):
    """`8`, or several: `1,8,32`."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            sizes = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or several with commas between, as 1,8,32", param, ctx)
        if min(sizes) < 1:
            self.fail(f"a batch of {min(sizes)} is too small; the smallest is 1", param, ctx)
        return sizes


_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_provider_option = click.option(
    "--provider",
    "--device",
    "-e",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to run; auto takes CUDA if it works.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Write a JSON document to stdout.")


def _announced(model: Model) -> Model:
    """Say on stderr where a model runs."""
    session = model.session
    click.echo(f"runs on {session.describe()}" + (f" ({session.remark})" if session.remark else ""), err=True)
    return model


def _command() -> list[str]:
    return ["enas", *sys.argv[1:]]


# --- benchmark --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--batch-size",
    "-b",
    "batch_sizes",
    type=_BatchSizes(),
    multiple=True,
    default=["1,8,32"],
    show_default="1,8,32",
    help="Images a call; repeat, or separate with commas.",
)
@click.option(
    "--intra-op-threads",
    type=click.IntRange(min=1),
    show_default="usable cores",
    help="Threads that share the work of one call.",
)
@_provider_option
@click.option(
    "--duration",
    "-t",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    help="Time to sample every model at every batch size.",
    metavar="SECONDS",
)
@click.option(
    "--iterations",
    "-r",
    "min_samples",
    type=click.IntRange(min=1),
    default=64,
    help="Samples to take even if the time is over, up to five times as long; 64 support a p90.",
)
@click.option(
    "--warmup",
    "warmup_s",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Longest warm-up; it ends when the medians of three windows lie within 10 %.",
    metavar="SECONDS",
)
@click.option("--compare-torch", is_flag=True, help="Measure a run's network in eager torch on the CPU as well.")
@click.option("--seed", type=int, default=0, help="Of the random images.")
@_json_option
@click.option("--output", type=_FILE, show_default="RUN/benchmark.json", help="Where the JSON document is kept.")
@click.option("--export-markdown", type=_FILE, help="Write the table as Markdown, too.")
@click.pass_context
def benchmark(
    ctx: click.Context,
    *,
    models: tuple[Path, ...],
    batch_sizes: tuple[tuple[int, ...], ...],
    intra_op_threads: int | None,
    provider: Provider,
    duration_s: float,
    min_samples: int,
    warmup_s: float,
    compare_torch: bool,
    seed: int,
    as_json: bool,
    output: Path | None,
    export_markdown: Path | None,
) -> None:
    """Measure inference latency and throughput.

    MODEL is a model file or a run directory. Several take turns, so that their ratio holds on a noisy machine. A
    percentile is stated only where there are enough samples for it. Ctrl-C reports what was measured until then.
    """
    from runtime import report
    from runtime.benchmark import Plan
    from runtime.machine import usable_cores
    from runtime.model import Model
    from runtime.sweep import run_sweep

    threads = intra_op_threads or usable_cores()
    opened = {
        name: Model.open(path, provider=provider, threads=threads)
        for name, path in zip(_distinct(models), models, strict=True)
    }
    sweep = run_sweep(
        opened,
        peers={_TORCH: _torch_eager(ctx.obj, models, threads=threads)} if compare_torch else {},
        batch_sizes=list(dict.fromkeys(size for sizes in batch_sizes for size in sizes)),
        plan=Plan(duration_s=duration_s, min_samples=min_samples, warmup_s=warmup_s),
        threads=threads,
        seed=seed,
    )
    document = json.dumps(report.document(sweep, command=_command()))
    click.echo(document if as_json else report.text(sweep))
    # An interrupted benchmark takes the place of a whole one only where it is told to.
    kept = output or (None if sweep.is_partial else _output_in_run(models))
    if kept is not None:
        write_text(kept, document + "\n")
        click.echo(f"written to {kept}", err=True)
    if export_markdown is not None:
        write_text(export_markdown, report.markdown(sweep))
    if sweep.is_partial:
        ctx.exit(_INTERRUPTED)


def _distinct(paths: Sequence[Path]) -> list[str]:
    """The paths as they were typed; one that comes again gets a number."""
    seen: dict[Path, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(str(path) if seen[path] == 1 else f"{path} #{seen[path]}")
    return names


def _torch_eager(peers: Peers | None, models: Sequence[Path], *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    run = next((path for path in models if path.is_dir()), None)
    if run is None:
        raise OptionError(f"--compare-torch needs a run directory, where the torch network is; {models[0]} is a file")
    if peers is None:
        raise OptionError("--compare-torch works from the command line `enas` only")
    try:
        return peers.torch_eager(run, threads=threads)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exporter":
            raise
        raise OptionError(
            f"--compare-torch needs the package {error.name!r}: pip install 'enas-toolchain[train]'"
        ) from error


def _output_in_run(models: Sequence[Path]) -> Path | None:
    """A run directory that was measured keeps its benchmark; with several, the first."""
    run = next((path for path in models if path.is_dir()), None)
    return None if run is None else run / "benchmark.json"


# --- evaluate ---------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", type=_PATH)
@click.option("--dataset", metavar="NAME", show_default="the one it was trained on", help="A data set's name or file.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="test", help="Its part to score.")
@click.option("--batch-size", "-b", type=click.IntRange(min=1), default=64, help="Images a call.")
@_provider_option
@_json_option
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
        "command": _command(),
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
@click.argument("model", type=_PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=_PATH)
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes to name for every picture.")
@_provider_option
@_json_option
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
