"""What the commands of this package share: options, and the errors of options that do not go together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from foundation.command_options import DEVICES

if TYPE_CHECKING:
    from runtime.models.artifact import Artifact

_Opened = TypeVar("_Opened", bound="Artifact")

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
provider_option = click.option(
    "--provider",
    "--device",
    "-e",
    type=click.Choice(DEVICES),
    default="auto",
    help="Where to run; auto takes CUDA if it works.",
)


def command_line() -> list[str]:
    return ["enas", *sys.argv[1:]]


def announced(model: _Opened) -> _Opened:
    """Say on stderr where a model runs."""
    session = model.session
    click.echo(f"runs on {session.describe()}" + (f" ({session.remark})" if session.remark else ""), err=True)
    return model
