"""The options of a benchmark, and the targets, loads, grid and plan that follow from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundation import statistics
from foundation.allowance import usable_cores
from foundation.bearer_token import is_token, token_in
from foundation.options import OptionError
from runtime.benchmarking.benchmark import Plan
from runtime.benchmarking.clients import RemoteTarget
from runtime.benchmarking.local_targets import COMPILED, EAGER, LocalTargets, Peers, run_of
from runtime.benchmarking.parameters import REMOTE_CONCURRENCY
from runtime.benchmarking.results import Goal, Sweep
from runtime.benchmarking.scenarios import Arrivals, Load, Scenario
from runtime.benchmarking.sweep import Grid, run_sweep
from runtime.benchmarking.targets import Target, Transfer
from runtime.models.providers import ConvSearch, Provider, Tuning

# Source: RFC 9110, section 5.6.2.
_NAME_SIGNS = "!#$%&'*+-.^_`|~"
_HEADER_NAME = re.compile(f"[A-Za-z0-9{re.escape(_NAME_SIGNS)}]+")
# Options that apply only to models in this process, with their fields and default values.
_LOCAL_OPTIONS = (
    ("--compare-torch", "compare_torch", False),
    ("--compare-compiled", "compare_compiled", False),
    ("--compare-reference", "compare_reference", False),
    ("--intra-op-threads", "threads", None),
    ("--provider", "provider", "auto"),
    ("--no-spinning", "spinning", True),
    ("--io-binding", "io_binding", False),
    ("--no-data-transfers", "data_transfers", True),
    ("--cuda-graph", "cuda_graph", False),
    ("--conv-search", "conv_search", "exhaustive"),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """The options of `enas benchmark` that decide what is measured; their help texts explain them.

    Raises: OptionError: options that cannot be combined.
    """

    models: tuple[str, ...]
    """Files and run directories; with `url`, names of models on the server."""
    url: str | None
    """The server's address; None to measure in this process."""
    token_file: Path | None
    headers: tuple[str, ...]
    """Each NAME:VALUE."""
    scenarios: tuple[Scenario, ...]
    """Empty: single-stream."""
    batch_sizes: tuple[tuple[int, ...], ...]
    sizes: tuple[tuple[str, int], ...]
    """Free dimensions by name, with their sizes."""
    threads: tuple[int, ...] | None
    """Intra-op threads; None for the number of usable cores."""
    provider: Provider
    duration_s: float
    min_samples: int
    warmup_s: float
    sittings: int
    streams: int
    concurrency: tuple[int, ...] | None
    rates: tuple[float, ...] | None
    """Calls a second."""
    arrivals: Arrivals
    target_ms: float | None
    percentile: float
    """The percentage of calls that must meet `target_ms`, 50 to 99.9."""
    spinning: bool
    io_binding: bool
    data_transfers: bool
    cuda_graph: bool
    conv_search: ConvSearch
    compare_torch: bool
    compare_compiled: bool
    compare_reference: bool
    seed: int

    def __post_init__(self) -> None:
        scenarios = set(self.scenarios or ("single-stream",))
        if self.concurrency is not None and not {"offline", "server"} & scenarios:
            raise OptionError("--concurrency belongs to the scenarios offline and server")
        if self.target_ms is not None and not {"single-stream", "server"} & scenarios:
            raise OptionError("--latency-target belongs to the scenarios single-stream and server")
        if self.rates is not None and "server" not in scenarios:
            raise OptionError("--request-rate belongs to --scenario server")
        if "server" in scenarios and self.rates is None and self.target_ms is None:
            raise OptionError("--scenario server takes --request-rate, or a --latency-target to find the rate for")
        if self.url is not None:
            for option, field, default in _LOCAL_OPTIONS:
                if getattr(self, field) != default:
                    raise OptionError(f"{option} is of models in this process, and does not go together with --url")
            return
        if self.token_file is not None or self.headers:
            raise OptionError("--token-file and --header are for a server: they go with --url")
        if not (self.data_transfers or self.io_binding or self.cuda_graph):
            raise OptionError("--no-data-transfers takes --io-binding: without it every call copies")

    @property
    def compared(self) -> list[str]:
        """The forms of the network in torch that are compared with onnxruntime."""
        return [name for name, is_asked in ((EAGER, self.compare_torch), (COMPILED, self.compare_compiled)) if is_asked]

    @property
    def loads(self) -> list[Load]:
        """One load for each scenario and each combination of its rates and calls in flight."""
        loads: list[Load] = []
        for scenario in dict.fromkeys(self.scenarios or ("single-stream",)):
            if scenario in ("single-stream", "multi-stream"):
                loads.append(Load(scenario, streams=self.streams))
                continue
            is_server = scenario == "server"
            in_flight = self.concurrency or ((REMOTE_CONCURRENCY,) if self.url is not None and is_server else (1,))
            for rate in (self.rates or (None,)) if is_server else (None,):
                loads += [
                    Load(scenario, concurrency=count, rate_per_s=rate, arrivals=self.arrivals, seed=self.seed)
                    for count in in_flight
                ]
        return loads

    @property
    def grid(self) -> Grid:
        threads = self.threads or (usable_cores(),)
        return Grid(
            threads=[None] if self.url is not None else list(dict.fromkeys(threads)),
            batch_sizes=list(dict.fromkeys(size for some in self.batch_sizes for size in some)) or None,
            loads=self.loads,
            sizes=dict(self.sizes),
        )

    @property
    def goal(self) -> Goal | None:
        return None if self.target_ms is None else Goal(self.target_ms, self.percentile / 100)

    @property
    def plan(self) -> Plan:
        """How long each point is sampled, with at least as many samples as the goal's percentile needs."""
        fewest = 1 if self.goal is None else statistics.fewest_samples(self.goal.q)
        return Plan(
            duration_s=self.duration_s,
            min_samples=max(self.min_samples, fewest),
            warmup_s=self.warmup_s,
            sittings=self.sittings,
        )

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of every request to the server.

        Raises: OSError: the token's file cannot be read. OptionError: the token or a given header is not valid in a
            header.
        """
        found: dict[str, str] = {}
        if self.token_file is not None:
            token = token_in(self.token_file)
            if not is_token(token):
                raise OptionError(f"--token-file {self.token_file}: a token is a line of printable ASCII characters")
            found["Authorization"] = f"Bearer {token}"
        for header in self.headers:
            name, colon, value = (part.strip() for part in header.partition(":"))
            if not (colon and name):
                raise OptionError(f"--header is {header!r}, but must be NAME:VALUE")
            if not _HEADER_NAME.fullmatch(name):
                raise OptionError(f"--header is {header!r}, but a name is of letters, digits and {_NAME_SIGNS}")
            if not (value.isprintable() and all(ord(character) < 256 for character in value)):
                raise OptionError(f"--header is {header!r}, but a value is of printable characters of Latin-1")
            found[name] = value
        return found

    @property
    def run_path(self) -> Path | None:
        """The first model that is a run directory; None if there is none or the models are on a server."""
        return None if self.url is not None else run_of(self.models)

    def targets(self, *, peers: Peers | None) -> Callable[[int | None], Sequence[Target]]:
        """Returns a function that makes the targets for a number of threads. peers: makes the peers of models."""
        if self.url is None:
            return LocalTargets(
                self.models,
                provider=self.provider,
                tuning=Tuning(spinning=self.spinning, conv_search=self.conv_search, cuda_graph=self.cuda_graph),
                transfer=Transfer(io_binding=self.io_binding or self.cuda_graph, copies=self.data_transfers),
                peers=peers,
                compared=self.compared,
                with_references=self.compare_reference,
            )
        headers = self.request_headers
        remote = [RemoteTarget.find(name, url=self.url, headers=headers) for name in dict.fromkeys(self.models)]
        return lambda _: remote

    def measure(self, *, peers: Peers | None) -> Sweep:
        """Runs the benchmark. Raises: as `run_sweep`, and as the functions that make the targets."""
        return run_sweep(
            self.targets(peers=peers),
            grid=self.grid,
            baseline=next(iter(self.compared), None),
            plan=self.plan,
            goal=self.goal,
            seed=self.seed,
        )
