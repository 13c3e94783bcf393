"""The command `enas derive`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.command_options import seed_option
from searcher.commands.options import resume_options, settings_options
from searcher.commands.trainings import Trainings, trainings_options

if TYPE_CHECKING:
    from searcher.running.run_folder import Opening


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--preset", show_default="the search's", help="Settings: one of the space's presets.")
@settings_options
@click.option("--candidates", type=click.IntRange(min=1), show_default="the preset's", help="Architectures to train.")
@click.option(
    "--descendants",
    type=click.IntRange(min=0),
    show_default="the preset's",
    help="Neighbours of the first rung's best to train in it, too.",
)
@click.option(
    "--rung",
    "rungs",
    type=click.IntRange(min=1),
    multiple=True,
    show_default="the preset's",
    help="Epochs of a rung's trainings, each as long as one of the preset; once for each rung.",
)
@seed_option("Fixes the derivation.", default="the search's")
@trainings_options
@resume_options("derivation", resume="Go on with an unfinished {stage}; do nothing where it is finished.")
def derive(
    run: Path,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    candidates: int | None,
    descendants: int | None,
    rungs: tuple[int, ...],
    seed: int | None,
    trainings: Trainings,
    opening: Opening,
) -> None:
    """Choose the architecture of a finished search anew, by training many candidates briefly and the best for longer.

    Candidates come from the search; with a latency target all meet it, as measured, and the known networks of the space
    join them at the width at which they do. The choice goes into the run's spec.json. --config and --set change how
    candidates are trained.
    """
    from exporter.retraining.config import config_types
    from exporter.retraining.presets import retrain_preset
    from exporter.retraining.request import preset_of, provenance_of
    from exporter.selection.derivation import derive_by_training
    from exporter.selection.halving import halving_preset
    from exporter.selection.searches import searched_spec
    from searcher.arch.spec import read_spec
    from searcher.commands.advice import retrain_advice
    from searcher.report.text import describe_spec
    from searcher.running.settings import Settings

    settings = Settings.read(config_file, assignments)
    searched = searched_spec(run)
    preset = preset_of(searched, settings, preset)
    seed = provenance_of(searched, "seed", int) or 0 if seed is None else seed
    config = halving_preset(preset)
    config = replace(
        config,
        num_candidates=candidates or config.num_candidates,
        num_descendants=config.num_descendants if descendants is None else descendants,
        rung_epochs=rungs or config.rung_epochs,
        seed=seed,
    )
    recipe = settings.apply(retrain_preset(searched.space, preset), types=config_types(searched.space))
    recipe = replace(recipe, seed=seed, train_on="train", threads=trainings.threads or 1)
    with trainings.setting() as setting:
        found = derive_by_training(
            run,
            config,
            recipe,
            setting=setting,
            opening=opening,
            log=lambda line: click.echo(line, err=True),
        )
    click.echo(describe_spec(read_spec(run / "spec.json")), nl=False)
    click.echo(f"\nchose {found.chosen}", err=True)
    click.echo(f"next: {retrain_advice(run)}", err=True)
