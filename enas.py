"""The command line `enas COMMAND`: a lazily loading group of the commands in the packages' `commands/`.

A command's module is imported when the command runs, so `enas --help` loads nothing heavy and `enas benchmark`
never loads torch. Errors that a user can cause are caught here: one clear line on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation import telemetry
from foundation.neighbours import require_own_datasets
from foundation.packages import needs
from foundation.text import printable

if TYPE_CHECKING:
    import numpy as np

    from searcher.latency.table import LatencyTable


@dataclass(frozen=True)
class _LazyCommand:
    module: str
    attribute: str
    summary: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


_COMMANDS = {
    "data": _LazyCommand(
        "datasets.cli",
        "data",
        "List, inspect, fetch and import data sets.",
    ),
    "search": _LazyCommand(
        "searcher.commands.search",
        "search",
        "Search for an architecture with ENAS.",
    ),
    "spec": _LazyCommand(
        "searcher.commands.spec",
        "spec",
        "Show, check, draw and convert architecture specs.",
    ),
    "report": _LazyCommand(
        "searcher.commands.report",
        "report",
        "Write a run's HTML page.",
    ),
    "watch": _LazyCommand(
        "searcher.commands.watch",
        "watch",
        "Follow a run in the terminal.",
    ),
    "retrain": _LazyCommand(
        "exporter.commands.retrain",
        "retrain",
        "Train the architecture of a spec from scratch.",
    ),
    "derive": _LazyCommand(
        "exporter.commands.derive",
        "derive",
        "Choose a search's architecture by training many.",
    ),
    "latency": _LazyCommand(
        "exporter.commands.latency",
        "latency",
        "Measure what a space's blocks take on this machine.",
    ),
    "rank": _LazyCommand(
        "exporter.commands.rank",
        "rank",
        "Judge a search: do its shared weights rank architectures rightly?",
    ),
    "compare": _LazyCommand(
        "exporter.commands.compare",
        "compare",
        "Judge a network: is it better than others that are as fast?",
    ),
    "export": _LazyCommand(
        "exporter.commands.export",
        "export",
        "Convert a retrained network to ONNX and verify it.",
    ),
    "verify": _LazyCommand(
        "exporter.commands.export",
        "verify",
        "Compare an exported model with its torch network.",
    ),
    "evaluate": _LazyCommand(
        "runtime.commands.score",
        "evaluate",
        "Score an exported model on a data set.",
    ),
    "predict": _LazyCommand(
        "runtime.commands.score",
        "predict",
        "Classify image files with an exported model.",
    ),
    "generate": _LazyCommand(
        "runtime.commands.generate",
        "generate",
        "Write text with an exported language model.",
    ),
    "benchmark": _LazyCommand(
        "runtime.commands.benchmark",
        "benchmark",
        "Measure inference latency and throughput.",
    ),
    "serve": _LazyCommand(
        "runtime.commands.serve",
        "serve",
        "Serve exported models over HTTP.",
    ),
}
_PACKAGES = ("foundation", "datasets", "searcher", "exporter", "runtime")
# Packages that are missing in an installation that only runs models.
_TRAINING_PACKAGES = ("torch", "onnx", "onnxscript", "tensorboard", "tomli_w")


class Peers:
    """Functions that a package's commands need from packages that it must not import.

    `runtime` compares models with torch networks and does not import torch; `searcher` predicts with latencies that
    `exporter` measures; `datasets` looks up the data set of a preset of `searcher`.
    """

    def default_dataset(self, space: str, preset: str) -> str:
        """Returns the default data set of a preset; loads no torch."""
        name: str = importlib.import_module("searcher.presets.datasets").default_dataset(space, preset)
        return name

    def latency_table(
        self, space_name: str, space: Any, network: Any, task: Any, *, batch: int, threads: int
    ) -> LatencyTable:
        """Returns this machine's latency table of an image space; measures it if there is none yet."""
        profiling = importlib.import_module("exporter.latency.profiling")
        profiled = profiling.Profiled(space_name, space, network, task)
        say = partial(click.echo, err=True)
        table: LatencyTable = profiling.table_here(profiled, batch=batch, threads=threads, log=say)
        return table

    def torch_network(
        self, run: Path, *, threads: int, device: str, compiled: bool
    ) -> Callable[[np.ndarray], np.ndarray]:
        """The run's retrained network in torch: images [B, H, W, C] uint8 -> logits [B, classes]."""
        peers = importlib.import_module("exporter.judging.peers")
        network: Callable[[np.ndarray], np.ndarray] = peers.torch_network(
            run, threads=threads, device=device, compiled=compiled
        )
        return network

    def references(self, *, image_shape: tuple[int, int, int], num_classes: int) -> Mapping[str, bytes]:
        """Returns well-known networks, untrained, for images of this shape (H, W, C): name -> ONNX file."""
        peers = importlib.import_module("exporter.judging.peers")
        files: Mapping[str, bytes] = peers.references(image_shape=image_shape, num_classes=num_classes)
        return files


class _LazyGroup(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def __init__(self, *, package: str | None, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lazy = {name: c for name, c in _COMMANDS.items() if package in (None, c.package)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = self._lazy.get(cmd_name)
        if command is None:
            return None
        require_own_datasets()
        found: click.Command = getattr(importlib.import_module(command.module), command.attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in self._lazy.items()])


def _is_users_mistake(error: Exception) -> bool:
    """Whether a user can have caused an error: a ValueError of our own classes, or an error of the file system."""
    ours = type(error).__module__.partition(".")[0] in _PACKAGES
    return (isinstance(error, ValueError) and ours) or isinstance(error, OSError)


def _one_line(error: Exception) -> str:
    """Returns the message with terminal control characters escaped: file and class names in it come from outside."""
    return "\n".join(map(printable, str(error).split("\n")))


def build_group(package: str | None = None) -> click.Group:
    """The commands of one package, or of all."""
    return _LazyGroup(
        package=package,
        name="enas",
        help="From labelled data to a small, fast, deployed network: ENAS search, retraining, ONNX, benchmark.",
        context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    )


def main(package: str | None = None) -> None:
    """Run the command line of all packages, or of one (`python -m runtime`).

    Exits 0 on success, 1 on a failed check, 2 on a user's mistake, 75 at --max-hours, 130 when interrupted; and 1,
    without a message, if the reader of its output has gone (`enas … | head`), which click handles.
    """
    telemetry.switch_off()
    # A stream that was closed before the start (`2>&-`) is None, which neither click's nor tqdm's callers expect.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        status = build_group(package).main(obj=Peers(), standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        status = 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        if error.name not in _TRAINING_PACKAGES:
            raise
        click.echo(f"error: this {needs(error.name)}", err=True)
        status = 2
    except Exception as error:
        if not _is_users_mistake(error):
            raise
        click.echo(f"error: {_one_line(error)}", err=True)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
