"""`enas benchmark`.

numpy and onnxruntime take longer to import than `--help` may take to appear: the command imports what it runs with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datasets.files import write_text
from foundation.options import OptionError
from runtime.benchmarking.parameters import Duration, Numbers, Size
from runtime.commands.options import FILE, command_line, json_option, provider_option

if TYPE_CHECKING:
    from runtime.benchmarking.results import Sweep
    from runtime.benchmarking.scenarios import Arrivals, Load, Scenario
    from runtime.benchmarking.targets import Target
    from runtime.models.providers import ConvSearch, Provider

_INTERRUPTED = 130
_FAILED = 1
# Requests that a server may be sent before it has answered the first of them.
_REMOTE_CONCURRENCY = 64


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
    type=Numbers(),
    show_default="usable cores",
    help="Threads that share the work of one call; several are tried in turn.",
)
@provider_option
@click.option(
    "--duration",
    "-t",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
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
@click.option(
    "--sittings",
    type=click.IntRange(min=1),
    default=10,
    help="Times to open every model afresh; six at least give a ratio its interval.",
)
@click.option(
    "--streams", type=click.IntRange(min=1), default=8, help="Calls of a multi-stream query, made at the same time."
)
@click.option(
    "--concurrency",
    "--concurrency-range",
    type=Numbers(),
    show_default=f"1; server with --url {_REMOTE_CONCURRENCY}",
    help="Calls in flight, offline and server; several are tried in turn.",
)
@click.option(
    "--request-rate",
    "--request-rate-range",
    "rates",
    type=Numbers(float),
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
    type=click.FloatRange(min=50, max=99.9),
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
@click.option("--seed", type=int, default=0, help="Of the random inputs and arrivals.")
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
    *,
    models: tuple[str, ...],
    url: str | None,
    token_file: Path | None,
    headers: tuple[str, ...],
    scenarios: tuple[Scenario, ...],
    batch_sizes: tuple[tuple[int, ...], ...],
    sizes: tuple[tuple[str, int], ...],
    threads: tuple[int, ...] | None,
    provider: Provider,
    duration_s: float,
    min_samples: int,
    warmup_s: float,
    sittings: int,
    streams: int,
    concurrency: tuple[int, ...] | None,
    rates: tuple[float, ...] | None,
    arrivals: Arrivals,
    target_ms: float | None,
    percentile: float,
    spinning: bool,
    io_binding: bool,
    data_transfers: bool,
    cuda_graph: bool,
    conv_search: ConvSearch,
    compare_torch: bool,
    compare_compiled: bool,
    compare_reference: bool,
    seed: int,
    as_json: bool,
    output: Path | None,
    export_markdown: Path | None,
    export_plots: Path | None,
) -> None:
    """Measure inference latency and throughput.

    MODEL is a model file, ours or any other, or a run directory; with --url a name. Several take turns, so that their
    ratio holds on a noisy machine. A percentile is stated only where there are enough samples for it. Ctrl-C reports
    what was measured until then.
    """
    from foundation import statistics
    from foundation.cores import usable_cores
    from runtime.benchmarking import report
    from runtime.benchmarking.benchmark import Plan
    from runtime.benchmarking.local_targets import COMPILED, EAGER, LocalTargets, run_of
    from runtime.benchmarking.results import Goal
    from runtime.benchmarking.sweep import Grid, run_sweep
    from runtime.benchmarking.targets import Transfer
    from runtime.models.providers import Tuning

    loads = _loads(
        scenarios or ("single-stream",),
        streams=streams,
        concurrency=concurrency,
        rates=rates,
        arrivals=arrivals,
        has_target=target_ms is not None,
        is_remote=url is not None,
        seed=seed,
    )
    goal = None if target_ms is None else Goal(target_ms, percentile / 100)
    compared = [name for name, is_asked in ((EAGER, compare_torch), (COMPILED, compare_compiled)) if is_asked]
    if url is not None:
        if compared or compare_reference:
            raise OptionError("--compare-… measures in this process, and does not go together with --url")
        remote = _remote(models, url=url, headers=_headers(headers, token_file=token_file))
        make_targets: Callable[[int | None], Sequence[Target]] = lambda _: remote  # noqa: E731
    else:
        if token_file is not None or headers:
            raise OptionError("--token-file and --header are for a server: they go with --url")
        if not (data_transfers or io_binding or cuda_graph):
            raise OptionError("--no-data-transfers takes --io-binding: without it every call copies")
        make_targets = LocalTargets(
            models,
            provider=provider,
            tuning=Tuning(spinning=spinning, conv_search=conv_search, cuda_graph=cuda_graph),
            transfer=Transfer(io_binding=io_binding or cuda_graph, copies=data_transfers),
            peers=ctx.obj,
            compared=compared,
            with_references=compare_reference,
        )
    fewest = 1 if goal is None else statistics.fewest_samples(goal.q)
    sweep = run_sweep(
        make_targets,
        grid=Grid(
            threads=[None] if url is not None else list(dict.fromkeys(threads or (usable_cores(),))),
            batch_sizes=list(dict.fromkeys(size for some in batch_sizes for size in some)) or None,
            loads=loads,
            sizes=dict(sizes),
        ),
        baseline=next(iter(compared), None),
        plan=Plan(duration_s=duration_s, min_samples=max(min_samples, fewest), warmup_s=warmup_s, sittings=sittings),
        goal=goal,
        seed=seed,
    )
    document = json.dumps(report.document(sweep, command=command_line()))
    click.echo(document if as_json else report.text(sweep))
    _keep(sweep, document, output=output, plots=export_plots, run=None if url is not None else run_of(models))
    if export_markdown is not None:
        write_text(export_markdown, report.markdown(sweep))
    if sweep.is_partial:
        ctx.exit(_INTERRUPTED)
    if sweep.failures:
        ctx.exit(_FAILED)


def _loads(
    scenarios: Sequence[Scenario],
    *,
    streams: int,
    concurrency: Sequence[int] | None,
    rates: Sequence[float] | None,
    arrivals: Arrivals,
    has_target: bool,
    is_remote: bool,
    seed: int,
) -> list[Load]:
    from runtime.benchmarking.scenarios import Load

    if concurrency is not None and not {"offline", "server"} & set(scenarios):
        raise OptionError("--concurrency belongs to the scenarios offline and server")
    if has_target and not {"single-stream", "server"} & set(scenarios):
        raise OptionError("--latency-target belongs to the scenarios single-stream and server")
    if rates is not None and "server" not in scenarios:
        raise OptionError("--request-rate belongs to --scenario server")
    if "server" in scenarios and rates is None and not has_target:
        raise OptionError("--scenario server takes --request-rate, or a --latency-target to find the rate for")
    loads: list[Load] = []
    for scenario in dict.fromkeys(scenarios):
        if scenario in ("single-stream", "multi-stream"):
            loads.append(Load(scenario, streams=streams))
            continue
        in_flight = concurrency or ((_REMOTE_CONCURRENCY,) if is_remote and scenario == "server" else (1,))
        for rate in (rates or (None,)) if scenario == "server" else (None,):
            loads += [
                Load(scenario, concurrency=count, rate_per_s=rate, arrivals=arrivals, seed=seed) for count in in_flight
            ]
    return loads


def _headers(headers: Sequence[str], *, token_file: Path | None) -> dict[str, str]:
    """What every request carries."""
    found: dict[str, str] = {}
    if token_file is not None:
        found["Authorization"] = f"Bearer {token_file.read_text(encoding='utf-8').strip()}"
    for header in headers:
        name, colon, value = header.partition(":")
        if not (colon and name.strip().isascii() and name.strip() and header.isprintable()):
            raise OptionError(f"--header is {header!r}, but must be NAME:VALUE")
        found[name.strip()] = value.strip()
    return found


def _remote(models: Sequence[str], *, url: str, headers: Mapping[str, str]) -> list[Target]:
    from runtime.benchmarking.clients import RemoteTarget

    return [RemoteTarget.find(name, url=url, headers=headers) for name in dict.fromkeys(models)]


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
