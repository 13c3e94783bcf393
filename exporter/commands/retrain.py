"""The command `enas retrain`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import device_option, seed_option
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH
from searcher.commands.options import (
    exits_when_stopped,
    flip_option,
    graphs_option,
    jobs_options,
    leading_speaker,
    memory_budget_option,
    pace_options,
    resume_options,
    settings_options,
    speaker,
    threads_option,
    under_torchrun,
    workers_for,
)
from searcher.commands.trainings import EPOCHS_HELP

if TYPE_CHECKING:
    import torch

    from exporter.retraining.request import Model, RetrainRequest
    from searcher.nn.graphs import Graphs
    from searcher.running.distributed import World
    from searcher.running.interrupt import Interrupt
    from searcher.running.pacing import Pace
    from searcher.running.run_folder import Opening, RunFolder

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="RUN|SPEC", type=_PATH)
@click.option(
    "--preset", show_default="the config's, the spec's, or quick", help="Settings: one of the space's presets."
)
@settings_options
@click.option("--run", "run_path", type=_PATH, help="Run directory, where SPEC is no run.")
@click.option(
    "--dataset", show_default="the spec's", help="A data set's name or path, to which the spec is re-targeted."
)
@click.option(
    "--channels",
    type=click.IntRange(min=2, max=MAX_WIDTH),
    show_default="the spec's",
    help="Width of the first cell or layer; those of stages follow it.",
)
@click.option(
    "--cells", type=click.IntRange(min=3, max=MAX_DEPTH), show_default="the spec's", help="Number of cells, micro."
)
@click.option(
    "--hidden-size", type=click.IntRange(min=1, max=MAX_WIDTH), show_default="the spec's", help="Width, recurrent."
)
@click.option(
    "--skip-merge",
    type=click.Choice(["sum", "concat", "residual"]),
    show_default="the spec's",
    help="How macro layers join their skips; residual is the fastest in a runtime.",
)
@click.option(
    "--teacher",
    "teachers",
    type=_PATH,
    multiple=True,
    metavar="MODEL",
    help="For images: an ONNX classifier to learn from beside the labels; of several, from their mean.",
)
@click.option("--epochs", type=click.IntRange(min=1), show_default="the preset's", help=EPOCHS_HELP)
@seed_option("Fixes the run.", default="the search's, or 0")
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    show_default="the preset's, none",
    help="For images: balanced lets rare classes count as much as frequent ones.",
)
@click.option(
    "--lstm/--no-lstm",
    default=None,
    show_default="lstm",
    help="For text: train torch's LSTM of as many parameters, too, to compare with.",
)
@memory_budget_option
@flip_option
@jobs_options
@threads_option
@pace_options
@device_option
@graphs_option
@resume_options("retraining")
def retrain(
    *,
    jobs: int | None,
    executor: str | None,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    cuda_graphs: bool,
    opening: Opening,
    **options: Any,  # the fields of RetrainOptions
) -> None:
    """Train the network of a run's spec.json, of a spec file or of a published spec (`enas spec list`) from scratch.

    The epoch is chosen on the valid split, the last that is no worse than the best; test is scored once, at the end.
    """
    from exporter.retraining.request import RetrainOptions, retrain_request
    from exporter.retraining.text import result_text
    from searcher.nn.graphs import cuda_graphs as graphs_of
    from searcher.running import device as devices
    from searcher.running.pacing import pace_of

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    tell = partial(leading_speaker(), err=True)
    wanted = RetrainOptions(**options)
    if opening.resume:
        typed, wanted = wanted, wanted.going_on
        if typed.config_file is None:
            opening = opening.with_settings_of(wanted.config_file)
    request = retrain_request(wanted, say=tell)
    if not opening.force:
        request.check_size(again=opening.again)
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    if cuda_graphs:
        graphs_of(torch_device)  # an error here leaves no run behind
    request = request.with_examined_teachers(device=torch_device, opening=opening, say=tell)
    if executor is None and (
        cuda_graphs or _one_at_a_time(request.folders.values(), jobs=jobs, device=torch_device) or under_torchrun()
    ):
        graphs = partial(graphs_of, torch_device) if cuda_graphs else None
        summaries, say = _in_this_process(request, device=torch_device, pace=pace, graphs=graphs, opening=opening)
    else:
        summaries = _side_by_side(request, device=device, pace=pace, executor=executor, opening=opening)
        say = click.echo
    for model, summary in summaries.items():
        say(f"{'LSTM: ' if model == 'lstm' else ''}{result_text(summary)}")
    say(f"next: enas export {shlex.quote(str(request.run_path))}", err=True)


def _one_at_a_time(folders: Iterable[Path], *, jobs: int | None, device: torch.device) -> bool:
    """Whether the unfinished trainings of some folders must run one after the other."""
    from searcher.running.executors import default_jobs
    from searcher.running.run_folder import RunFolder

    left = [path for path in folders if not RunFolder(path).finished]
    return min(jobs or default_jobs(device), len(left)) < 2


def _in_this_process(
    request: RetrainRequest,
    *,
    device: torch.device,
    pace: Pace,
    graphs: Callable[[], Graphs] | None,
    opening: Opening,
) -> tuple[dict[Model, dict[str, Any]], Callable[..., None]]:
    """Train one model after the other; returns the summaries, and an echo that prints only on the leading process."""
    from searcher.running.distributed import joined
    from searcher.running.interrupt import catch_signals
    from searcher.running.run_folder import RunFolder

    configs = request.configs
    with catch_signals() as interrupt, exits_when_stopped(), joined(device) as world, ExitStack() as stack:
        say = speaker(speaks=world.leads)
        # All are opened before any is trained, which may take hours.
        opened = {
            model: stack.enter_context(closing(RunFolder.open(path, configs[model], opening, world=world)))
            for model, path in request.folders.items()
        }
        _discard_earlier_lstm(request, opening=opening)
        summaries = {
            model: _train(
                request,
                model,
                folder=folder,
                device=device,
                world=world,
                interrupt=interrupt,
                pace=pace,
                # torch's LSTM keeps references of its own to its weights.
                graphs=graphs if model == "spec" else None,
                say=say,
            )
            for model, folder in opened.items()
        }
    return summaries, say


def _train(
    request: RetrainRequest,
    model: Model,
    *,
    folder: RunFolder,
    device: torch.device,
    world: World,
    interrupt: Interrupt,
    pace: Pace,
    graphs: Callable[[], Graphs] | None,
    say: Callable[..., None],
) -> dict[str, Any]:
    """Train one model, or resume its training; returns the summary. Raises: Stopped: the user stops it."""
    from exporter.retraining.retrain import retrain
    from searcher.running import device as devices

    config = request.configs[model]
    if folder.finished:
        say(f"{folder.path}: finished before", err=True)
        return folder.summary()
    with devices.torch_threads(config.threads):
        say(f"training in {folder.path} on {devices.describe(device, count=world.size)}", err=True)
        return retrain(
            request.spec,
            config,
            store=request.store,
            folder=folder,
            device=device,
            interrupt=interrupt,
            pace=pace,
            graphs=graphs,
        )


def _side_by_side(
    request: RetrainRequest, *, device: str, pace: Pace, executor: str | None, opening: Opening
) -> dict[Model, dict[str, Any]]:
    """Train all models at the same time, each in its own process; returns the summaries."""
    from exporter.retraining.trainings import begin_training, retrain_job
    from searcher.running.jobs import run_jobs

    folders, configs = request.folders, request.configs
    begun = [
        begin_training(path.name, request.spec, configs[model], path=path, store=request.store, opening=opening)
        for model, path in folders.items()
    ]
    _discard_earlier_lstm(request, opening=opening)
    click.echo(f"training in {' and '.join(map(str, folders.values()))}, side by side", err=True)
    with workers_for(len(folders), device=device, pace=pace, executor=executor) as setting:
        found = run_jobs(retrain_job, begun, folder=request.run_path, setting=setting, title="retrain")
    return dict(zip(folders, found, strict=True))


def _discard_earlier_lstm(request: RetrainRequest, *, opening: Opening) -> None:
    """Delete the LSTM of a retraining that starts anew without one. Call once its folders are open: a refused command
    deletes nothing."""
    from searcher.running.run_folder import RunFolder

    if opening.force and "lstm" not in request.models:
        RunFolder.discard(request.run_path / "retrain-lstm")
