"""The command `enas search`."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import device_option, seed_option
from searcher.commands.options import (
    exits_when_stopped,
    flip_option,
    graphs_option,
    leading_speaker,
    memory_budget_option,
    pace_options,
    resume_options,
    settings_options,
    space_option,
    speaker,
    threads_option,
)
from searcher.latency.options import latency_options

if TYPE_CHECKING:
    from searcher.running.run_folder import Opening


@click.command()
@space_option(show_default="the config's, or stages; of published presets micro")
@click.option(
    "--preset", show_default="the config's, or quick", help="Settings: quick, paper, or another of the space's."
)
@settings_options
@click.option("--dataset", show_default="the preset's own", help="Name of a data set, or path of a store.")
@click.option(
    "--run",
    "run_path",
    type=click.Path(path_type=Path),
    metavar="RUN",
    show_default="runs/<space>-<dataset>-<preset>",
    help="Run directory, made if it is not there.",
)
@seed_option("Fixes the run.", default="the config's, or 0")
@click.option(
    "--policy",
    type=click.Choice(["lstm", "random"]),
    show_default="the config's, or lstm",
    help="The controller, or uniform random search.",
)
@click.option(
    "--derive",
    "derivation",
    type=click.Choice(["thorough", "paper"]),
    show_default="the config's, or thorough",
    help="How the architecture is chosen in the end: in rounds, or as published, the best of 10 on one minibatch.",
)
@memory_budget_option
@flip_option
@threads_option
@latency_options
@pace_options
@device_option
@graphs_option
@resume_options("search")
@click.pass_context
def search(
    ctx: click.Context,
    /,
    *,
    run_path: Path | None,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    cuda_graphs: bool,
    opening: Opening,
    **options: Any,  # the fields of SearchOptions
) -> None:
    """Search for an architecture with ENAS and write it to the run's spec.json."""
    from searcher.commands.advice import retrain_advice
    from searcher.commands.search_request import SearchOptions, search_request, with_latency
    from searcher.latency.kept import KEPT, KeptTables
    from searcher.latency.target import Aim
    from searcher.nn.graphs import cuda_graphs as graphs_of
    from searcher.report.text import describe_spec
    from searcher.running import device as devices
    from searcher.running.distributed import joined
    from searcher.running.interrupt import catch_signals
    from searcher.running.pacing import pace_of
    from searcher.running.run_folder import RunFolder
    from searcher.training.search import search as run_search

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    note = partial(leading_speaker(), err=True)
    wanted = SearchOptions(**options)
    if opening.resume and run_path is not None:
        typed, wanted = wanted, wanted.going_on(run_path / "search")
        if typed.config_file is None:
            opening = opening.with_settings_of(wanted.config_file)
    request = search_request(wanted, say=note)
    run_path = run_path or request.default_run
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    graphs = graphs_of(torch_device) if cuda_graphs else None
    tables = KeptTables(run_path / "search", ctx.obj) if opening.resume else ctx.obj
    if opening.resume and not RunFolder(run_path / "search").begun:
        config = request.config
        note(f"a new search in {run_path}: {config.space} networks for {config.dataset}, preset {config.preset}")
    with ExitStack() as stack:
        interrupt = stack.enter_context(catch_signals())
        # A stop here keeps the measurements; an earlier search still exists, so --force must be given again.
        with exits_when_stopped("--force" if opening.force else "--resume"), interrupt.at_once():
            config, table = with_latency(request, tables=tables, say=note)
        stack.enter_context(exits_when_stopped())
        world = stack.enter_context(joined(torch_device))
        # All ranks use one machine's latencies: with different ones they would sample and reward differently.
        config, table = world.share(lambda: (config, table))
        stack.enter_context(devices.torch_threads(config.threads))
        folder = stack.enter_context(closing(RunFolder.open(run_path / "search", config, opening, world=world)))
        say = speaker(speaks=world.leads)
        if folder.finished:
            if world.leads:
                say(_finished(run_path), err=True)
            return
        if table is not None and world.leads:
            table.write(folder.path / KEPT)
        say(f"search in {run_path} on {devices.describe(torch_device, count=world.size)}", err=True)
        aim = None
        if table is not None and config.latency is not None:
            aim = Aim(config.latency, table.predictor(config.final_network, request.task))
        spec = run_search(
            config,
            store=request.store,
            folder=folder,
            device=torch_device,
            interrupt=interrupt,
            pace=pace,
            graphs=graphs,
            aim=aim,
        )
    say(describe_spec(spec), nl=False)
    say(f"\nwrote {run_path / 'spec.json'}; next: {retrain_advice(run_path)}", err=True)


def _finished(run: Path) -> str:
    """Returns the message about a finished search; writes the run's spec.json again if it is missing.

    If a derivation has chosen it since, only the derivation can write it again.
    """
    from searcher.arch.spec import read_spec, write_spec

    path = run / "spec.json"
    if path.exists():
        return f"{run}: the search is finished; its architecture is in {path}"
    if (run / "derivation.json").exists():
        derive = f"`enas derive {shlex.quote(str(run))} --resume`, with the options it was begun with,"
        return f"{run}: the search is finished; {derive} writes {path} again"
    own = run / "search" / "spec.json"
    if not own.exists():  # an earlier version made the search
        return f"{run}: the search is finished, but {path} is missing; --force searches anew"
    write_spec(path, read_spec(own))
    return f"{run}: the search is finished; {path} was missing and is written again"
