"""The command `enas watch`."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.command_options import FiniteRange

if TYPE_CHECKING:
    from searcher.watch import Line


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--every", metavar="SECONDS", type=FiniteRange(min=0.1), default=2.0, help="Between two looks.")
@click.option("--once", is_flag=True, help="Look once.")
def watch(run: Path, every: float, once: bool) -> None:
    """Follow a run: epoch, reward against random, accuracy and time left of each stage.

    Any terminal that sees the run directory can watch it; the run notices nothing. It ends when the model is exported,
    or with Ctrl-C. Without a terminal it writes a line whenever one has changed.
    """
    from searcher.watch import Watcher

    watcher = Watcher(run)
    shown: list[Line] = []
    while True:
        is_finished = watcher.is_finished
        lines = watcher.lines(now=time.time())
        if sys.stdout.isatty() and not once:
            _redraw(lines, above=len(shown))
        else:
            told = {(line.stage, line.course) for line in shown}
            for line in lines:
                if (line.stage, line.course) not in told:
                    click.echo(str(line))
        shown = lines
        if once or is_finished:
            return
        time.sleep(every)


def _redraw(lines: list[Line], *, above: int) -> None:
    """Overwrites the last `above` lines of the terminal with lines no wider than it."""
    width = shutil.get_terminal_size().columns
    up = f"\x1b[{above}A" if above else ""
    click.echo(up + "".join(f"{str(line)[:width]}\x1b[K\n" for line in lines) + "\x1b[J", nl=False)
