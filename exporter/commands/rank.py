"""The command `enas rank`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.command_options import seed_option
from foundation.tables import ABSENT, aligned
from searcher.commands.options import resume_options, settings_options
from searcher.commands.trainings import EPOCHS_HELP, Trainings, trainings_options

if TYPE_CHECKING:
    from exporter.judging.ranking import Ranking
    from searcher.running.run_folder import Opening


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=3), default=10, help="Random architectures to train.")
@click.option("--preset", show_default="the search's", help="Settings of training: one of the space's presets.")
@settings_options
@click.option("--epochs", type=click.IntRange(min=1), show_default="the preset's", help=EPOCHS_HELP)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=2, help="Trainings of each; their agreement is the ceiling."
)
@click.option(
    "--rung",
    "rungs",
    type=click.IntRange(min=1),
    multiple=True,
    show_default="the derivation's, of the preset",
    help="Epochs of a short training of each, as a derivation's rungs have them; once for each length.",
)
@seed_option("Chooses the architectures, and fixes the training.", default="the config's, or 0")
@trainings_options
@resume_options("ranking")
def rank(
    run: Path,
    count: int,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    seeds: int,
    rungs: tuple[int, ...],
    seed: int | None,
    trainings: Trainings,
    opening: Opening,
) -> None:
    """Judge a finished search: do its shared weights, and the short trainings of a derivation, rank architectures as
    training each from scratch does?

    Random architectures are scored with the shared weights and after each short training on one half of the valid
    split, and after training alone, with several seeds, on the other. Kendall's tau says how far the orders agree,
    beside how far two seeds agree and how far the order by size or latency does. A small valid split tells networks
    apart badly, so tau is given with the last epoch's training loss, too. The test split is not looked at. Writes
    ranking.json, which `enas report` draws.
    """
    from exporter.judging.ranking import RANKING
    from exporter.judging.ranking import rank as run_rank
    from exporter.retraining.config import config_types
    from exporter.retraining.presets import retrain_preset
    from exporter.retraining.request import preset_of
    from exporter.selection.halving import halving_preset
    from exporter.selection.rungs import shortened
    from foundation.document import ConfigError
    from searcher.arch.catalog import check_is_run, find_spec
    from searcher.running.settings import Settings

    check_is_run(run)
    spec = find_spec(run)
    settings = Settings.read(config_file, assignments)
    # With train_on = train, valid remains to score on.
    preset = preset_of(spec, settings, preset)
    base = replace(retrain_preset(spec.space, preset), train_on="train", threads=1)
    config = settings.apply(base, types=config_types(spec.space))
    if config.train_on != "train":
        raise ConfigError(f"train_on is {config.train_on}, but architectures are ranked by what they score on valid")
    seed = config.seed if seed is None else seed
    threads = trainings.threads or config.threads
    recipe = replace(config, threads=threads)
    config = replace(recipe, seed=seed).for_epochs(epochs, is_min_steps_own=settings.has("min_steps"))
    for rung in rungs:
        if rung >= config.num_epochs:
            raise ConfigError(
                f"--rung {rung} is no shorter than the trainings that it foretells, of {config.num_epochs}"
            )
    lengths = rungs or [one for one in halving_preset(preset).rung_epochs if one < config.num_epochs]
    with trainings.setting(most=count * max(seeds, len(lengths))) as setting:
        found = run_rank(
            run,
            config,
            count=count,
            num_seeds=seeds,
            seed=seed,
            rungs=[shortened(recipe, one) for one in sorted(set(lengths))],
            setting=setting,
            opening=opening,
            log=partial(click.echo, err=True),
        )
    for line in _ranking_lines(found):
        click.echo(line)
    click.echo(f"wrote {run / RANKING}; `enas report {shlex.quote(str(run))}` draws it", err=True)


def _ranking_lines(found: Ranking) -> Iterator[str]:
    """A table of the predictors for each measure, and the shared weights' rank correlation with its p-value."""
    for judged in found.judgements:
        where = "of the last epoch" if judged.measure == "training loss" else "on half of valid"
        yield f"by {judged.measure} {where}"
        header = ["predictor", "tau", "± s.e.", "share", "p", "upper half", f"regret of {judged.agreements[0].top}"]
        rows = []
        for one, agreed in zip(found.predictors, judged.agreements, strict=True):
            regret = f"{100 * agreed.regret:.2f} pts" if judged.measure == "accuracy" else f"{agreed.regret:.3f}"
            error, share = _cell(agreed.standard_error, ".2f"), _cell(agreed.share, ".2f")
            chance, upper = _cell(agreed.p_value, ".2g"), _cell(agreed.upper_half_tau, ".2f")
            rows.append([one.name, _cell(agreed.tau, ".2f"), error, share, chance, upper, regret])
        if judged.seed_tau is None:
            yield aligned(header, rows)
            continue
        tells_apart = any(agreed.share is not None for agreed in judged.agreements)
        error, share = _cell(judged.seed_standard_error, ".2f"), "1" if tells_apart else ABSENT
        rows.append(["another seed", f"{judged.seed_tau:.2f}", error, share, "", "", ""])
        meaning = "the most that can be asked for" if tells_apart else "by this, networks cannot be told apart"
        yield f"{aligned(header, rows)}   {meaning}"
    pool = f"{len(found.architectures)} architectures trained for {found.epochs} epochs"
    shared = found.judgements[0].agreements[0]
    tau, p_value = shared.tau, shared.p_value
    if tau is None or p_value is None:
        yield f"Kendall's tau is not defined over {pool}: all of them score alike"
    else:
        yield f"Kendall's tau {tau:.2f} over {pool} (a random order comes as far with probability {p_value:.2g})"


def _cell(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)
