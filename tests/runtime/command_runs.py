"""Running a command of the runtime in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result


def run(command: click.Command, *arguments: str | Path, peers: Any = None) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], obj=peers)


def document_of(command: click.Command, *arguments: str | Path, peers: Any = None) -> dict[str, Any]:
    result = run(command, *arguments, "--json", peers=peers)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def mistake(command: click.Command, *arguments: str | Path, peers: Any = None) -> str:
    error = run(command, *arguments, peers=peers).exception
    assert isinstance(error, ValueError)
    return str(error)
