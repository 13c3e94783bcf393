"""The command `enas compare`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import json_option, seed_option
from foundation.tables import aligned
from searcher.commands.options import flip_option, resume_options, settings_options
from searcher.commands.trainings import EPOCHS_HELP, Trainings, trainings_options
from searcher.latency.options import latency_setting

if TYPE_CHECKING:
    from exporter.retraining.config import RetrainConfig
    from searcher.arch.spec import Spec
    from searcher.running.run_folder import Opening


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="Trainings of each network.")
@click.option(
    "--random", "num_random", type=click.IntRange(min=0), default=8, help="Random networks of the same space."
)
@click.option(
    "--references",
    multiple=True,
    metavar="SPEC",
    show_default="the published ones",
    help="Network to compare with: a file, a run, or a name; may be given again. A name takes part with two stems: one "
    "that brings pictures to 32 pixels or fewer, and one that halves that.",
)
@click.option("--preset", show_default="the retraining's", help="Recipe of all trainings: one of the space's presets.")
@settings_options
@click.option("--epochs", type=click.IntRange(min=1), show_default="the recipe's", help=EPOCHS_HELP)
@click.option("--dataset", show_default="the run's", help="What all are made for, and trained on: name or path.")
@click.option("--test-dataset", metavar="NAME|PATH", show_default="the data set's own", help="Score on its test split.")
@flip_option
@latency_setting
@seed_option("Draws the random networks; the first training's seed.", default=0)
@trainings_options
@json_option
@resume_options("comparison", resume="Go on with an unfinished {stage}, or add seeds to a finished one.")
def compare(
    run: Path,
    seeds: int,
    num_random: int,
    references: tuple[str, ...],
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    dataset: str | None,
    test_dataset: str | None,
    flip: bool | None,
    latency_batch: int,
    latency_threads: int,
    seed: int,
    trainings: Trainings,
    as_json: bool,
    opening: Opening,
) -> None:
    """Judge the network a run has found: is it better than others that are as fast?

    Trains it, random networks of its space and known ones with one recipe and several seeds. All others are scaled in
    width until onnxruntime takes the same time for them, within 3 %; known ones that have no such width may take up to
    a tenth longer. Trained on train, chosen on valid, scored once on test. Writes comparison.json, which `enas report`
    draws.
    """
    from datasets.store import ImageStore, StoreError
    from exporter.judging.comparison import COMPARISON, CompareConfig, recipe_for_all
    from exporter.judging.comparison import compare as run_compare
    from exporter.retraining.config import config_types
    from exporter.retraining.request import is_of, suited_to, with_data
    from searcher.running.settings import Settings
    from searcher.training.mirroring import FLIP

    say = partial(click.echo, err=True)
    settings = Settings.read(config_file, assignments)
    spec, base, is_retraining = _found(run, preset=settings.name("preset", preset), say=say)
    recipe = settings.apply(base, types=config_types(spec.space))
    retargeted, store = with_data(spec, dataset, say=say)
    if not isinstance(store, ImageStore):
        raise StoreError(f"`enas compare` is for networks of images; {run} has one of text")
    # A retraining on the same data has already decided about mirroring.
    is_named_so = retargeted.task.dataset == spec.task.dataset
    is_on_the_same = is_retraining and is_of(store, sha256=base.dataset_sha256, is_named_so=is_named_so)
    is_decided = settings.has(FLIP) or is_on_the_same
    recipe = suited_to(retargeted, store, recipe_for_all(recipe), flip=flip, is_own=is_decided, run=run, say=say)
    recipe = recipe.for_epochs(epochs, is_min_steps_own=settings.has("min_steps"))
    recipe = replace(recipe, threads=trainings.threads or 1)
    config = CompareConfig(
        num_random=num_random,
        references=references,
        latency_batch=latency_batch,
        latency_threads=latency_threads,
        seed=seed,
        test_dataset=test_dataset or retargeted.task.dataset,
    )
    with trainings.setting() as setting:
        found = run_compare(
            run,
            spec,
            recipe,
            config,
            task=retargeted.task,
            store=store,
            num_seeds=seeds,
            setting=setting,
            opening=opening,
            log=say,
        )
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
    say(f"wrote {run / COMPARISON}; `enas report {shlex.quote(str(run))}` draws it")


def _found(run: Path, *, preset: str | None, say: Any) -> tuple[Spec, RetrainConfig, bool]:
    """The run's network, at its retrained size, the configuration to train with, and whether it is the retraining's.

    Raises: ArchitectureError: there is no network. RunError: there is no run, or its retrained network is another one.
    DocumentError: there is no such preset, or a file of the run is damaged.
    """
    from exporter.retraining.config import RetrainConfig, config_types
    from exporter.retraining.presets import retrain_preset
    from exporter.retraining.retrain import check_up_to_date
    from searcher.arch.catalog import find_spec, published_names
    from searcher.running.run_folder import RunError, RunFolder, read_config

    if not run.is_dir():
        is_spec = run.is_file() or str(run) in published_names()
        makes_one = f"; `enas retrain {shlex.quote(str(run))} --run DIR` makes one of this spec" if is_spec else ""
        raise RunError(f"{run}: not the directory of a run{makes_one}")
    spec = find_spec(run)
    folder = RunFolder(run / "retrain")
    retrained = folder.path / "spec.json"
    if not retrained.exists():
        say(f"{run}: nothing is retrained there: comparing the network of its spec.json")
    else:
        check_up_to_date(run)
        spec = find_spec(retrained)
    if preset is None and folder.begun:
        return spec, read_config(folder.config_path, RetrainConfig, types=config_types(spec.space)), True
    named = spec.provenance.get("preset")
    return spec, retrain_preset(spec.space, preset or (named if isinstance(named, str) else "quick")), False


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table, and what follows from it."""
    from searcher.report.sections.comparison import caveats

    networks = found["networks"]
    header = ["", "latency", "× found", "parameters", "valid", "test", "95 % interval"]
    rows = []
    for row in sorted(networks, key=lambda row: -row["test_accuracy"]["value"]):
        latency, ratio, test = row["latency_ms"]["value"], row["latency_ratio"]["value"], row["test_accuracy"]
        interval = f"{test['interval']['low']:.2%} to {test['interval']['high']:.2%}"
        accuracies = [f"{row['valid_accuracy']:.2%}", f"{test['value']:.2%}", interval]
        rows.append([row["name"], f"{latency:.3f} ms", f"{ratio:.3f}", f"{row['parameters']:,}", *accuracies])
    yield aligned(header, rows, left=(0, 6))
    seeds = "1 seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
    yield (
        f"\n{seeds} each, {found['epochs']} epochs on {found['dataset']}, {found['test_count']:,} test images of "
        f"{found['test_dataset']}; batch {found['latency_batch']}, {found['latency_threads']} threads, {found['cpu']}"
    )
    for one in found["left_out"]:
        yield f"left out: {one['name']}: {one['reason']}"
    ratios = {row["name"]: f", {row['latency_ratio']['value']:.2f} of its time" for row in networks}
    for one in found["differences"]:
        low, high = one["interval"]["low"], one["interval"]["high"]
        yield (
            f"found - {one['less']} ({one['name']}{ratios.get(one['name'], '')}): {100 * one['value']:+.2f} points "
            f"({100 * low:+.2f} to {100 * high:+.2f})"
        )
    for one in found["spreads"]:
        yield spread_text(one)
    yield from caveats(found)
    if found["disturbances"]:
        yield f"latencies are noisy: {'; '.join(found['disturbances'])}"


def spread_text(spread: Mapping[str, Any]) -> str:
    """A pool's spread in words, and whether there is nothing to rank."""
    words = (
        f"{spread['pool']}: accuracies spread by {100 * spread['deviation']:.2f} points (standard deviation), those of "
        f"equals would by {100 * spread['noise']:.2f}"
    )
    return f"{words}: nothing to rank" if spread["nothing_to_rank"] else words
