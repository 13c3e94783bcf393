"""The command `enas latency`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from foundation.command_options import force_option, json_option
from searcher.commands.options import space_option
from searcher.latency.options import latency_setting


@click.group()
def latency() -> None:
    """Latency tables: what each fused block of a search space takes on this machine, for `enas search --latency`.

    A table holds for one CPU, onnxruntime version, batch and number of threads. A search makes the one that it needs by
    itself.
    """


@latency.command()
@space_option(default="stages")
@click.option("--preset", default="quick", help="Whose space and network size: one of the space's presets.")
@click.option("--dataset", show_default="the preset's own", help="Name of a data set, or path of a store.")
@latency_setting
@force_option("Measure again where there is a table.")
@json_option
def profile(
    space: str,
    preset: str,
    dataset: str | None,
    latency_batch: int,
    latency_threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Measure every block of a space in onnxruntime, and whole networks to fit and check the sum on.

    What an interrupted profile has measured of the blocks is kept, and the next one goes on from there; the whole
    networks at its end are measured side by side, in one sitting of a minute or so.
    """
    from exporter.latency.profiling import Profiled, setting_here, table_here, table_path
    from searcher.arch.tasks import ImageClassification, image_size_of
    from searcher.latency.target import check_has_latency
    from searcher.presets.catalog import default_dataset, search_preset
    from searcher.training.task_kinds import load_store, task_of

    check_has_latency(space)
    dataset = dataset or default_dataset(space, preset)
    task = task_of(load_store(dataset, space=space), dataset=dataset)
    assert isinstance(task, ImageClassification)
    config = search_preset(space, preset, image_size=image_size_of(task))
    profiled = Profiled(space, config.search_space, config.final_network, task)
    path = table_path(profiled, setting_here(batch=latency_batch, threads=latency_threads))
    if force:
        path.unlink(missing_ok=True)
    table_here(profiled, batch=latency_batch, threads=latency_threads, log=lambda line: click.echo(line, err=True))
    _tell(path, as_json=as_json)


@latency.command()
@click.argument("table", type=click.Path(path_type=Path))
@json_option
def show(table: Path, as_json: bool) -> None:
    """Tell what a table holds for, and how well it predicts."""
    _tell(table, as_json=as_json)


def _tell(path: Path, *, as_json: bool) -> None:
    from dataclasses import asdict

    from searcher.latency.table import read_table

    table = read_table(path)
    if as_json:
        document = {
            "path": str(path),
            "space": table.space,
            "setting": asdict(table.setting),
            "is_noisy": table.is_noisy,
            "rows": len(table.rows),
            "references": dict(table.references),
            "fit": asdict(table.fit),
        }
        click.echo(json.dumps(document, indent=2))
        return
    setting, fit = table.setting, table.fit
    click.echo(f"{path}: {len(table.rows)} blocks of the space {table.space}")
    click.echo(
        f"{setting.cpu}, onnxruntime {setting.onnxruntime} on {setting.provider}, batch {setting.batch}, "
        f"threads {setting.threads}" + ("; NOISY: other work ran beside it" if table.is_noisy else "")
    )
    click.echo(
        f"T = {fit.intercept_ms:.4f} ms + {fit.per_block_ms:.4f} ms x blocks + rows, from {fit.networks} networks; "
        f"of {fit.held_out} others the median error is {fit.median_error:.1%}, the rank correlation "
        f"{fit.rank_correlation:.3f}"
    )
    for name, ms in table.references.items():
        click.echo(f"{name}: {ms:.3f} ms")
