"""Recipes on trial: what each ingredient of a training is worth, alone, on several networks and lengths of training.

`make recipes DATASET=cifar10-jpeg` trains every network with the preset, and with one ingredient changed at a time, and
prints a table. It may take nights: every training is a run folder under --out, and the same command goes on where it
was stopped. Seeds are the outermost loop, so that a part of the table is a fair one. Valid decides; test is not used.
"""

# S seeds

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from datasets.catalog import load_images
from datasets.store import ImageStore
from exporter.retraining.config import RetrainConfig, config_types
from exporter.retraining.presets import retrain_preset
from exporter.retraining.trainings import begin_training, validate_job
from searcher.arch.catalog import find_spec
from searcher.arch.retarget import retarget
from searcher.arch.spec import Spec
from searcher.commands.options import command_again, workers_for
from searcher.running.jobs import Job, run_jobs
from searcher.running.pacing import pace_of
from searcher.running.run_folder import Opening
from searcher.running.settings import Settings
from searcher.training.task_kinds import task_of

RECIPES = {
    "rate 0.05": "sgd.learning_rate=0.05",
    "rate 0.2": "sgd.learning_rate=0.2",
    "weight decay 0.001": "sgd.weight_decay=0.001",
    "batches of 128": "batch_size=128",
    "no label smoothing": "training.label_smoothing=0.0",
    "no average of weights": "average_share=0.0",
    "cutout 8": "training.augmentation.cutout=8",
    "erasing 0.25": "training.augmentation.erase_prob=0.25",
    "mixup 0.2": "training.augmentation.mixup=0.2",
    "cutmix 1": "training.augmentation.cutmix=1.0",
    "TrivialAugment": "training.augmentation.trivial_augment=true",
    "SGD": "sgd.optimizer=sgd",
    "AdamW": "sgd.optimizer=adamw sgd.learning_rate=0.002 sgd.weight_decay=0.05",
    "sharpness-aware": "sgd.sharpness=0.05",
}
_BASE = "the preset"


@dataclass(frozen=True)
class Trial:
    """One training of the table."""

    network: str
    epochs: int
    recipe: str
    seed: int

    @property
    def folder(self) -> str:
        words = (self.recipe, Path(self.network).name, f"{self.epochs} epochs", f"seed {self.seed}")
        return "/".join(word.replace(" ", "-") for word in words)


@click.command()
@click.option("--dataset", default="fashion-mnist-mini", show_default=True, help="Name or path of a data set.")
@click.option("--network", "networks", multiple=True, default=("resnet-20", "inverted-small"), show_default=True)
@click.option("--epochs", type=int, multiple=True, default=(5, 20, 60), show_default=True)
@click.option("--recipe", "recipes", multiple=True, help="One of the list, or KEY=VALUE, several with blanks between.")
@click.option("--preset", default="deploy", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Trainings at a time, on one thread each.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/recipes"), show_default=True)
def main(
    dataset: str,
    networks: tuple[str, ...],
    epochs: tuple[int, ...],
    recipes: tuple[str, ...],
    preset: str,
    seeds: int,
    jobs: int,
    out: Path,
) -> None:
    """Train with a preset, and with one ingredient changed at a time; print what each is worth on valid."""
    store = load_images(dataset)
    changes = {_BASE: "", **({name: RECIPES.get(name, name) for name in recipes} or RECIPES)}
    trials = [
        Trial(network, length, recipe, seed)
        for seed, length, network, recipe in itertools.product(range(seeds), epochs, networks, changes)
    ]
    begun = [
        _begin(trial, changes[trial.recipe], preset=preset, dataset=dataset, store=store, out=out / store.name)
        for trial in trials
    ]
    pace = pace_of(checkpoint_minutes=10.0, max_hours=None)
    with workers_for(jobs, device="auto", pace=pace, executor=None) as setting:
        summaries = run_jobs(validate_job, begun, folder=out / store.name, setting=setting, title="recipes")
    scores = {trial: summary["valid_score"] for trial, summary in zip(trials, summaries, strict=True)}
    click.echo(f"{store.name}, preset {preset}, {store.count('valid'):,} valid images, {seeds} seeds\n")
    click.echo("\n".join(table(scores, recipes=list(changes))))


def _begin(trial: Trial, changes: str, *, preset: str, dataset: str, store: ImageStore, out: Path) -> Job:
    spec: Spec = retarget(find_spec(Path(trial.network)), task_of(store, dataset=dataset))
    settings = Settings.read(None, shlex.split(changes))
    config: RetrainConfig = settings.apply(retrain_preset(spec.space, preset), types=config_types(spec.space))
    return begin_training(
        trial.folder.replace("/", ", "),
        spec,
        replace(config, num_epochs=trial.epochs, seed=trial.seed, threads=1, min_steps=0, train_on="train"),
        path=out / trial.folder,
        store=store,
        opening=Opening(resume=True, again=command_again()),
    )


def table(scores: Mapping[Trial, float | None], *, recipes: Sequence[str]) -> Iterator[str]:
    """Markdown: the preset's mean accuracy, and how many points others differ from it, seed by seed.

    Args: scores: None where a training diverged.
    """
    columns = list(dict.fromkeys((trial.network, trial.epochs) for trial in scores))
    yield "| recipe | " + " | ".join(f"{network}, {epochs} epochs" for network, epochs in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for recipe in recipes:
        cells = []
        for column in columns:
            own, base = (_by_seed(scores, *column, one) for one in (recipe, _BASE))
            if np.isnan(own).any():
                cells.append("diverges")
            elif recipe == _BASE:
                cells.append(f"{_with_error(100 * own)} %")
            else:
                cells.append(_with_error(100 * (own - base), sign="+"))
        yield f"| {recipe} | " + " | ".join(cells) + " |"


def _by_seed(scores: Mapping[Trial, float | None], network: str, epochs: int, recipe: str) -> np.ndarray:
    """Accuracies [S]; nan where a training diverged."""
    found = {
        trial.seed: score for trial, score in scores.items() if trial == Trial(network, epochs, recipe, trial.seed)
    }
    return np.array([found[seed] for seed in sorted(found)], dtype=float)


def _with_error(values: np.ndarray, *, sign: str = "") -> str:
    """The mean and its standard error, of two seeds and more."""
    mean = f"{values.mean():{sign}.2f}"
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
