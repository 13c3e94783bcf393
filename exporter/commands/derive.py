"""The command `enas derive`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click

from foundation.command_options import device_option, seed_option
from searcher.commands.options import (
    command_again,
    jobs_options,
    pace_options,
    resume_options,
    settings_options,
    threads_option,
    workers_for,
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--preset", show_default="the search's", help="Settings: one of the space's presets.")
@settings_options
@click.option("--candidates", type=click.IntRange(min=1), show_default="the preset's", help="Architectures to train.")
@click.option(
    "--rung",
    "rungs",
    type=click.IntRange(min=1),
    multiple=True,
    show_default="the preset's",
    help="Epochs of a rung's trainings; once for each rung.",
)
@seed_option("Fixes the derivation.", default="the search's")
@jobs_options
@threads_option
@pace_options
@device_option
@resume_options("derivation", resume="Go on with an unfinished {stage}; do nothing where it is finished.")
def derive(
    run: Path,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    candidates: int | None,
    rungs: tuple[int, ...],
    seed: int | None,
    jobs: int | None,
    executor: str | None,
    threads: int | None,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    resume: bool,
    force: bool,
) -> None:
    """Choose the architecture of a finished search anew, by training many candidates briefly and the best for longer.

    Candidates come from the search; with a latency target all meet it, as measured, and the known networks of the space
    join them at the width at which they do. The choice goes into the run's spec.json. --config and --set change how
    candidates are trained.
    """
    from exporter.retraining.config import config_types
    from exporter.retraining.presets import retrain_preset
    from exporter.selection.derivation import DERIVATION, derive_by_training
    from exporter.selection.halving import halving_preset
    from searcher.arch.spec import read_spec
    from searcher.report.text import describe_spec
    from searcher.training import device as devices
    from searcher.training.executors import default_jobs
    from searcher.training.pacing import pace_of
    from searcher.training.settings import Settings

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    settings = Settings.read(config_file, assignments)
    searched = read_spec(run / "search" / "spec.json")
    preset = settings.name("preset", preset) or str((searched.provenance or {}).get("preset", "quick"))
    seed = int((searched.provenance or {}).get("seed", 0)) if seed is None else seed
    config = halving_preset(preset)
    config = replace(
        config,
        num_candidates=candidates or config.num_candidates,
        rung_epochs=rungs or config.rung_epochs,
        seed=seed,
    )
    recipe = settings.apply(retrain_preset(searched.space, preset), types=config_types(searched.space))
    recipe = replace(recipe, seed=seed, train_on="train", threads=threads or 1)
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    num_jobs = jobs or default_jobs(torch_device)
    again = command_again()
    with workers_for(num_jobs, device=device, pace=pace, executor=executor) as (setting, workers):
        found = derive_by_training(
            run,
            config,
            recipe,
            device=torch_device,
            setting=setting,
            executor=workers,
            resume=resume,
            force=force,
            again=again,
            log=lambda line: click.echo(line, err=True),
        )
    click.echo(describe_spec(read_spec(run / "spec.json")), nl=False)
    click.echo(f"\nchose {found.chosen}; wrote {run / 'spec.json'} and {run / DERIVATION}", err=True)
    click.echo(f"next: enas retrain {shlex.quote(str(run))}", err=True)
