"""Shared by the commands of long runs: options, and the exit of a run that was stopped. Loads no torch."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import Command, FiniteRange, force_option
from foundation.limits import MAX_THREADS
from searcher.arch.space_names import SPACE_NAMES
from searcher.running.interrupt import Stopped

if TYPE_CHECKING:
    from searcher.running.jobs import Setting
    from searcher.running.pacing import Pace

_INTERRUPTED = 130
_OUT_OF_TIME = 75  # sysexits.h: try again later


def pace_options(command: Command) -> Command:
    """Adds --checkpoint-minutes and --max-hours, as the parameters of `pacing.pace_of`."""
    for option in (
        click.option(
            "--max-hours",
            type=FiniteRange(min=0, min_open=True),
            metavar="H",
            show_default="no limit",
            help=f"Stop after that time, to be gone on with by --resume; exits {_OUT_OF_TIME}.",
        ),
        click.option(
            "--checkpoint-minutes",
            type=FiniteRange(min=0),
            metavar="M",
            default=10.0,
            help="Between checkpoints within an epoch; the end of an epoch writes one, too.",
        ),
    ):
        command = option(command)
    return command


def space_option(*, default: str | None = None, show_default: str | bool = True) -> Callable[[Command], Command]:
    """Adds --space, as the parameter space."""
    return click.option(
        "--space", default=default, show_default=show_default, help=f"Search space: {', '.join(SPACE_NAMES)}."
    )


def settings_options(command: Command) -> Command:
    """Adds --config and --set, as the parameters of `settings.Settings.read`."""
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a setting, as sgd.learning_rate=0.05; may be given many times.",
        ),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A config.toml, or part of one: what it holds replaces the preset's values.",
        ),
    ):
        command = option(command)
    return command


def threads_option(command: Command) -> Command:
    """Adds --threads, as the parameter threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        show_default="as many as pay; 1 for each of several trainings",
        help="CPU threads. Results are to the bit for a number of threads.",
    )(command)


def memory_budget_option(command: Command) -> Command:
    """Adds --memory-budget, as the parameter memory_budget_mb."""
    return click.option(
        "--memory-budget",
        "memory_budget_mb",
        type=click.IntRange(min=1),
        metavar="MB",
        show_default="2048",
        help="Images beyond it stream.",
    )(command)


def resume_options(
    stage: str, *, resume: str = "Go on with an unfinished {stage}, if there is one."
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --resume and --force, as the parameter opening. stage: what the command makes. resume: the help text."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_opening(*, resume: bool, force: bool, **options: Any) -> Any:
            from searcher.running.run_folder import Opening

            return command(opening=Opening(resume, force, command_again()), **options)

        with_force = force_option(f"Delete an existing {stage} first.")(with_opening)
        return click.option("--resume", is_flag=True, help=resume.format(stage=stage))(with_force)

    return decorate


def jobs_options(command: Command) -> Command:
    """Adds --jobs and --executor, as the parameters of `executors.executor_for`."""
    for option in (
        click.option(
            "--executor",
            metavar="dask:ADDRESS",
            show_default="this machine",
            help="Train on the workers of a dask cluster, whose scheduler has that address.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            show_default="one for each core, on CUDA 1",
            help="Trainings at a time, each in a process of its own. Changes no result.",
        ),
    ):
        command = option(command)
    return command


def flip_option(command: Command) -> Command:
    """Adds --flip/--no-flip, as the parameter flip, None if neither is given."""
    return click.option(
        "--flip/--no-flip",
        default=None,
        show_default="the preset's, unless mirrored pictures of a class look like another's",
        help="Mirror training pictures left to right at random.",
    )(command)


def graphs_option(command: Command) -> Command:
    """Adds --cuda-graphs, as the parameter cuda_graphs."""
    return click.option(
        "--cuda-graphs",
        is_flag=True,
        default=False,
        help="Record computation on a CUDA device once, and replay it; takes memory. For supernets of micro and macro, "
        "and for any fixed network.",
    )(command)


def command_again() -> str:
    """Returns the user's command line without --resume and --force, to recommend it for resuming."""
    enas = "torchrun … -m enas --" if under_torchrun() else "enas"
    return f"{enas} {shlex.join(word for word in sys.argv[1:] if word not in ('--resume', '--force'))}"


@contextmanager
def exits_when_stopped(go_on: str = "--resume") -> Iterator[None]:
    """If the block is stopped, reports how to resume, and exits. Must enclose `distributed.joined`."""
    try:
        yield
    except Stopped as stopped:
        reason = "stopped at the limit of --max-hours" if stopped.out_of_time else "stopped"
        leading_speaker()(f"{reason}; go on with: {command_again()} {go_on}", err=True)
        # torchrun passes no status on, and would restart a process that did not exit with 0.
        out_of_time = 0 if under_torchrun() else _OUT_OF_TIME
        click.get_current_context().exit(out_of_time if stopped.out_of_time else _INTERRUPTED)


@contextmanager
def workers_for(num_jobs: int, *, device: str, pace: Pace, executor: str | None) -> Iterator[Setting]:
    """Yields the setting that jobs receive; if they are stopped, reports how to resume, and exits.

    executor: see --executor. Raises: as `executors.executor_for`.
    """
    from searcher.running.executors import executor_for
    from searcher.running.interrupt import catch_signals
    from searcher.running.jobs import Setting

    with (
        catch_signals() as interrupt,
        executor_for(num_jobs, address=executor) as workers,
        exits_when_stopped(),
    ):
        yield Setting(device, interrupt, pace, workers)


def leading_speaker() -> Callable[..., None]:
    """Returns the leading process's `speaker`, for messages while the processes are not joined."""
    return speaker(speaks=os.environ.get("RANK", "0") == "0")


def speaker(*, speaks: bool) -> Callable[..., None]:
    """Returns `click.echo`, or a function that does nothing."""
    return click.echo if speaks else lambda *_, **__: None


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
