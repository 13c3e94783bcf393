"""`enas benchmark`.

numpy and onnxruntime take longer to import than `--help` may take to appear: the command imports what it runs with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from datasets.files import write_text
from runtime.options import FILE, PATH, OptionError, command_line, json_option, provider_option

if TYPE_CHECKING:
    import numpy as np

    from runtime.providers import Provider

_INTERRUPTED = 130
_TORCH = "torch eager"


class Peers(Protocol):
    """What a model may be compared with; handed in by the command line, so that nothing here imports torch."""

    def torch_eager(self, run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]: ...


class _BatchSizes(click.ParamType):
    """`8`, or several: `1,8,32`."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            sizes = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or several with commas between, as 1,8,32", param, ctx)
        if min(sizes) < 1:
            self.fail(f"a batch of {min(sizes)} is too small; the smallest is 1", param, ctx)
        return sizes


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=PATH)
@click.option(
    "--batch-size",
    "-b",
    "batch_sizes",
    type=_BatchSizes(),
    multiple=True,
    default=["1,8,32"],
    show_default="1,8,32",
    help="Images a call; repeat, or separate with commas.",
)
@click.option(
    "--intra-op-threads",
    type=click.IntRange(min=1),
    show_default="usable cores",
    help="Threads that share the work of one call.",
)
@provider_option
@click.option(
    "--duration",
    "-t",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    help="Time to sample every model at every batch size.",
    metavar="SECONDS",
)
@click.option(
    "--iterations",
    "-r",
    "min_samples",
    type=click.IntRange(min=1),
    default=64,
    help="Samples to take even if the time is over, up to five times as long; 64 support a p90.",
)
@click.option(
    "--warmup",
    "warmup_s",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Longest warm-up; it ends when the medians of three windows lie within 10 %.",
    metavar="SECONDS",
)
@click.option("--compare-torch", is_flag=True, help="Measure a run's network in eager torch on the CPU as well.")
@click.option("--seed", type=int, default=0, help="Of the random images.")
@json_option
@click.option("--output", type=FILE, show_default="RUN/benchmark.json", help="Where the JSON document is kept.")
@click.option("--export-markdown", type=FILE, help="Write the table as Markdown, too.")
@click.pass_context
def benchmark(
    ctx: click.Context,
    *,
    models: tuple[Path, ...],
    batch_sizes: tuple[tuple[int, ...], ...],
    intra_op_threads: int | None,
    provider: Provider,
    duration_s: float,
    min_samples: int,
    warmup_s: float,
    compare_torch: bool,
    seed: int,
    as_json: bool,
    output: Path | None,
    export_markdown: Path | None,
) -> None:
    """Measure inference latency and throughput.

    MODEL is a model file or a run directory. Several take turns, so that their ratio holds on a noisy machine. A
    percentile is stated only where there are enough samples for it. Ctrl-C reports what was measured until then.
    """
    from runtime import report
    from runtime.benchmark import Plan
    from runtime.machine import usable_cores
    from runtime.model import Model
    from runtime.sweep import run_sweep

    threads = intra_op_threads or usable_cores()
    opened = {
        name: Model.open(path, provider=provider, threads=threads)
        for name, path in zip(_distinct(models), models, strict=True)
    }
    sweep = run_sweep(
        opened,
        peers={_TORCH: _torch_eager(ctx.obj, models, threads=threads)} if compare_torch else {},
        batch_sizes=list(dict.fromkeys(size for sizes in batch_sizes for size in sizes)),
        plan=Plan(duration_s=duration_s, min_samples=min_samples, warmup_s=warmup_s),
        threads=threads,
        seed=seed,
    )
    document = json.dumps(report.document(sweep, command=command_line()))
    click.echo(document if as_json else report.text(sweep))
    # An interrupted benchmark takes the place of a whole one only where it is told to.
    kept = output or (None if sweep.is_partial else _output_in_run(models))
    if kept is not None:
        write_text(kept, document + "\n")
        click.echo(f"written to {kept}", err=True)
    if export_markdown is not None:
        write_text(export_markdown, report.markdown(sweep))
    if sweep.is_partial:
        ctx.exit(_INTERRUPTED)


def _distinct(paths: Sequence[Path]) -> list[str]:
    """The paths as they were typed; one that comes again gets a number."""
    seen: dict[Path, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(str(path) if seen[path] == 1 else f"{path} #{seen[path]}")
    return names


def _torch_eager(peers: Peers | None, models: Sequence[Path], *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    run = next((path for path in models if path.is_dir()), None)
    if run is None:
        raise OptionError(f"--compare-torch needs a run directory, where the torch network is; {models[0]} is a file")
    if peers is None:
        raise OptionError("--compare-torch works from the command line `enas` only")
    try:
        return peers.torch_eager(run, threads=threads)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exporter":
            raise
        raise OptionError(
            f"--compare-torch needs the package {error.name!r}: pip install 'enas-toolchain[train]'"
        ) from error


def _output_in_run(models: Sequence[Path]) -> Path | None:
    """A run directory that was measured keeps its benchmark; with several, the first."""
    run = next((path for path in models if path.is_dir()), None)
    return None if run is None else run / "benchmark.json"
