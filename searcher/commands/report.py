"""The command `enas report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write a run's page, report.html, from whatever the run directory holds so far.

    One file with the architecture, learning curves and results, which opens offline. Prints its path.
    """
    from foundation.document import DocumentError
    from searcher.report.page import write_report

    if run.is_dir() and not any((run / part).exists() for part in ("spec.json", "search", "retrain")):
        raise DocumentError(str(run), ["no run is there; give the run directory of `enas search` or `enas retrain`"])
    click.echo(write_report(run))
