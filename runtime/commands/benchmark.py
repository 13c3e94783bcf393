"""`enas benchmark`.

numpy and onnxruntime take longer to import than `--help` may take to appear: the command imports what it runs with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foundation.command_options import FiniteRange, json_option, seed_option
from foundation.files import write_text
from foundation.limits import MAX_THREADS
from runtime.benchmarking.parameters import (
    MOST_CALLS_PER_S,
    MOST_IN_FLIGHT,
    REMOTE_CONCURRENCY,
    Duration,
    Numbers,
    Size,
)
from runtime.commands.options import FILE, command_line, provider_option

if TYPE_CHECKING:
    from runtime.benchmarking.results import Sweep

_INTERRUPTED = 130
_FAILED = 1


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--url", metavar="URL", help="Measure models of an Open Inference Protocol server, by their names there.")
@click.option("--token-file", type=FILE, help="Show the server of --url the token in it.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Send the server of --url this; repeat.")
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice(["single-stream", "multi-stream", "offline", "server"]),
    multiple=True,
    show_default="single-stream",
    help="How calls come, as in MLPerf; repeat for several.",
)
@click.option(
    "--batch-size",
    "-b",
    "batch_sizes",
    type=Numbers(),
    multiple=True,
    show_default="1,8,32",
    help="Images, or whatever the model takes, a call; repeat, or separate with commas.",
)
@click.option(
    "--shape", "-f", "sizes", type=Size(), multiple=True, help="The size of a free dimension of an input; repeat."
)
@click.option(
    "--intra-op-threads",
    "threads",
    type=Numbers(largest=MAX_THREADS),
    show_default="usable cores",
    help="Threads that share the work of one call; several are tried in turn.",
)
@provider_option
@click.option(
    "--duration",
    "-t",
    "duration_s",
    type=FiniteRange(min=0, min_open=True),
    default=3.0,
    help="Time to sample every model at every point.",
    metavar="SECONDS",
)
@click.option(
    "--iterations",
    "-r",
    "min_samples",
    type=click.IntRange(min=1),
    default=64,
    help="Samples of single- and multi-stream to take even if the time is over, up to five times as long.",
)
@click.option(
    "--warmup",
    "warmup_s",
    type=FiniteRange(min=0),
    default=2.0,
    help="Longest warm-up; it ends when the medians of three windows lie within 10 %.",
    metavar="SECONDS",
)
@click.option(
    "--sittings",
    type=click.IntRange(min=1),
    default=10,
    help="Times to open every model afresh; six at least give a ratio its interval.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, MOST_IN_FLIGHT),
    default=8,
    help="Calls of a multi-stream query, made at the same time.",
)
@click.option(
    "--concurrency",
    "--concurrency-range",
    type=Numbers(largest=MOST_IN_FLIGHT),
    show_default=f"1; server with --url {REMOTE_CONCURRENCY}",
    help="Calls in flight, offline and server; several are tried in turn.",
)
@click.option(
    "--request-rate",
    "--request-rate-range",
    "rates",
    type=Numbers(float, largest=MOST_CALLS_PER_S),
    help="Calls a second of the server scenario; several are tried in turn.",
)
@click.option(
    "--request-distribution",
    "arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    help="How the calls of the server scenario come.",
)
@click.option(
    "--latency-target",
    "--latency-threshold",
    "target_ms",
    type=Duration(),
    help="Tell the largest batch, and with --scenario server the largest rate, whose latency is at most this, as 5ms.",
)
@click.option(
    "--percentile",
    type=FiniteRange(min=50, max=99.9),
    default=99.0,
    help="Of calls that must meet --latency-target, in per cent.",
)
@click.option("--spinning/--no-spinning", default=True, help="Whether idle threads spin for a while before they sleep.")
@click.option("--io-binding", is_flag=True, help="Keep inputs and outputs at fixed places on the device.")
@click.option(
    "--data-transfers/--no-data-transfers",
    default=True,
    help="Whether a call copies inputs to the device and outputs back; leaving it out takes --io-binding.",
)
@click.option("--cuda-graph", is_flag=True, help="Launch a call's kernels as one recorded CUDA graph; binds, too.")
@click.option(
    "--conv-search",
    type=click.Choice(["exhaustive", "heuristic", "default"]),
    default="exhaustive",
    help="How cuDNN chooses a convolution's algorithm.",
)
@click.option("--compare-torch", is_flag=True, help="Measure a run's network in eager torch as well.")
@click.option("--compare-compiled", is_flag=True, help="Measure a run's network under torch.compile as well.")
@click.option(
    "--compare-reference",
    is_flag=True,
    help="Measure MobileNetV2-, ResNet-20- and ShuffleNet-like networks of the same input as well, untrained.",
)
@seed_option("Of the random inputs and arrivals.", default=0)
@json_option
@click.option(
    "--output", "--export-json", type=FILE, show_default="RUN/benchmark.json", help="Where the JSON document is kept."
)
@click.option("--export-markdown", type=FILE, help="Write the tables as Markdown, too.")
@click.option(
    "--export-plots",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="RUN",
    help="Draw latency by batch size, and accuracy by latency, as SVG files in this directory.",
)
@click.pass_context
def benchmark(
    ctx: click.Context,
    /,
    *,
    as_json: bool,
    output: Path | None,
    export_markdown: Path | None,
    export_plots: Path | None,
    **options: Any,  # the fields of BenchmarkRequest
) -> None:
    """Measure inference latency and throughput.

    MODEL is a model file, ours or any other, or a run directory; with --url a name. Several take turns, so that their
    ratio holds on a noisy machine. A percentile is stated only where there are enough samples for it. Ctrl-C reports
    what was measured until then.
    """
    from runtime.benchmarking import report
    from runtime.benchmarking.request import BenchmarkRequest

    request = BenchmarkRequest(**options)
    sweep = request.measure(peers=ctx.obj)
    document = json.dumps(report.document(sweep, command=command_line()))
    try:
        _keep(sweep, document, output=output, plots=export_plots, run=request.run_path)
        if export_markdown is not None:
            write_text(export_markdown, report.markdown(sweep))
    finally:
        # Last, since stdout may be full or closed, and yet where no file can be written.
        click.echo(document if as_json else report.text(sweep))
    if sweep.is_partial:
        ctx.exit(_INTERRUPTED)
    if sweep.failures:
        ctx.exit(_FAILED)


def _keep(sweep: Sweep, document: str, *, output: Path | None, plots: Path | None, run: Path | None) -> None:
    """Write the document and the plots where it is told, or into the run that was measured.

    An interrupted benchmark takes the place of a whole one only where it is told to.
    """
    from runtime.benchmarking.plots import write_plots

    if run is not None and not sweep.is_partial:
        output, plots = output or run / "benchmark.json", plots or run
    if output is not None:
        write_text(output, document + "\n")
        click.echo(f"written to {output}", err=True)
    for path in [] if plots is None else write_plots(sweep, plots):
        click.echo(f"drawn in {path}", err=True)
