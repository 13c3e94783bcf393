"""What the commands of long runs have in common: options, and the end of a run that was stopped. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from searcher.training.interrupt import Stopped

_INTERRUPTED = 130
_OUT_OF_TIME = 75  # sysexits.h: try again later

_Command = TypeVar("_Command", bound=Callable[..., Any])


def pace_options(command: _Command) -> _Command:
    """--checkpoint-minutes and --max-hours, as the parameters of `checkpointer.pace_of`."""
    for option in (
        click.option(
            "--max-hours",
            type=click.FloatRange(min=0, min_open=True),
            metavar="H",
            show_default="no limit",
            help=f"Stop after that time, to be gone on with by --resume; exits {_OUT_OF_TIME}.",
        ),
        click.option(
            "--checkpoint-minutes",
            type=click.FloatRange(min=0),
            metavar="M",
            default=10.0,
            help="Between checkpoints within an epoch; the end of an epoch writes one, too.",
        ),
    ):
        command = option(command)
    return command


def exit_stopped(stopped: Stopped, *, again: str) -> NoReturn:
    """Say how to go on, and leave. again: the command the user typed."""
    reason = "stopped at the limit of --max-hours" if stopped.out_of_time else "stopped"
    click.echo(f"{reason}; go on with: {again} --resume", err=True)
    click.get_current_context().exit(_OUT_OF_TIME if stopped.out_of_time else _INTERRUPTED)
