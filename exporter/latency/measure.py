"""Measures the latency of untrained networks in onnxruntime, together, in seconds for tens of networks.

Searches, comparisons and fits of widths all measure here. `trace.py` writes a network as ONNX, with its batch norms on
the statistics of random pictures, and the benchmark of exported files times it. The result is not the median, though,
but the 0.1 quantile of the calls: networks are compared here, and if others use the machine, or the host that it
shares, medians of one network differ by 2 to 5 % from one sitting to the next, and this quantile by 0.3 %
(docs/experiments.md; `make bench ONLY=latencies` measures it here).
"""

# B batch, C channels, H height, W width, n networks

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from exporter.conversion.convert import DeployedNetwork
from exporter.conversion.trace import trace
from foundation import statistics
from foundation.machine import Activity, Machine, Reading, drift
from foundation.seeds import stream_seed
from foundation.statistics import Estimate
from runtime.benchmarking.benchmark import BenchmarkError, Contestant, Plan
from runtime.benchmarking.benchmark import measure as run_benchmark
from runtime.benchmarking.samples import Series, Sitting
from runtime.benchmarking.targets import OnnxTarget, Transfer
from runtime.models.inputs import random_inputs
from runtime.models.providers import DEFAULT_TUNING
from searcher.arch.spec import Spec, SpecOf
from searcher.arch.tasks import ImageClassification
from searcher.nn.build import build_network
from searcher.running.device import torch_threads

_SETTLING_IMAGES = 8
# Quantile of the calls: it is little disturbed by other processes, and not a single lucky call.
UNDISTURBED = 0.1
# Opening a session takes longer than all its calls; that must not reduce the number of sessions.
_PATIENCE = 100.0


@dataclass(frozen=True)
class Sized:
    """A network without a spec, such as a probe: images [B, C, H, W] -> (logits, auxiliary logits or None)."""

    network: nn.Module
    input_shape: tuple[int, ...]
    """H, W, C."""


Untrained = Spec | Sized


@dataclass(frozen=True)
class Latencies:
    """Latencies of n networks, measured together, in turn."""

    ms: tuple[Estimate, ...]
    """The 0.1 quantile of each network's calls, with its 95 % interval."""
    ratios: tuple[Estimate, ...]
    """Each network's time over the first one's, sitting by sitting; use these to compare. An interval needs six
    sittings."""
    batch: int
    threads: int
    machine: Machine
    disturbances: tuple[str, ...]
    """Why the machine counts as noisy; empty if it was quiet."""


@dataclass(frozen=True)
class Effort:
    """How carefully to measure."""

    seconds: float = 0.12
    """Duration of each network's calls, over all sittings."""
    sittings: int = 3
    """How many times each network's session is opened; from six on ratios have intervals."""


QUICK = Effort()
"""Half a second per network; within 0.3 % on a quiet machine."""
FITTING = Effort(seconds=0.06, sittings=2)
"""For networks that are measured repeatedly until one takes a given time."""
CAREFUL = Effort(seconds=0.4, sittings=8)
"""Gives ratios with intervals."""


def onnx_of(untrained: Untrained, *, seed: int = 0) -> bytes:
    """Returns the network's ONNX file, with the latency of the file exported after training. Needs no data set.

    On one thread: 30 ms for small networks, where two threads without a free core each take 0.3 to 2 s.
    """
    if isinstance(untrained, SpecOf):
        assert isinstance(untrained.task, ImageClassification)
        untrained = Sized(build_network(untrained, seed=seed), untrained.task.input_shape)
    channels = untrained.input_shape[-1]
    network = DeployedNetwork(untrained.network, mean=[0.5] * channels, std=[0.25] * channels)
    with torch_threads(1):
        _settle(network, input_shape=untrained.input_shape, seed=seed)
        return trace(network, input_shape=untrained.input_shape)


def measure(
    networks: Sequence[Untrained | bytes], *, batch: int = 1, threads: int = 1, effort: Effort = QUICK, seed: int = 0
) -> Latencies:
    """Returns the latencies of networks on this machine's CPU, measured together, in their order.

    Args: networks: specs of image networks, other networks, or ONNX files. batch: images per call. threads: intra-op.
    Raises: BenchmarkError: a network cannot be run.
    """
    contestants = []
    for number, network in enumerate(networks):
        data = network if isinstance(network, bytes) else onnx_of(network, seed=seed)
        target = OnnxTarget.load(
            f"network {number}", data, provider="cpu", threads=threads, tuning=DEFAULT_TUNING, transfer=Transfer()
        )
        feed = random_inputs(target.inputs, batch_size=batch, sizes={}, seed=seed, limits=target.limits)
        contestants.append(Contestant(target.name, partial(target.open, feed, None), target.examine))
    plan = Plan(
        duration_s=effort.seconds,
        sittings=effort.sittings,
        min_samples=3 * effort.sittings,
        patience=_PATIENCE,
        warmup_s=0.1,
        # A warm-up takes at least three windows; at a fifth of a sitting each, they are shorter than the timed calls.
        window_s=min(0.004, effort.seconds / effort.sittings / 5),
        turn_s=0.01,
        settle_s=0.002,
    )
    before = Reading.take()
    measurement = run_benchmark(contestants, plan=plan)
    if measurement.is_partial:
        raise KeyboardInterrupt
    machine = Machine.inspect()
    for series in measurement.series:
        if series.failure is not None:
            raise BenchmarkError(f"{series.name}: {series.failure}")
    activity = Activity.between(before, Reading.take())
    first = measurement.series[0]
    return Latencies(
        ms=tuple(statistics.quantile(series.samples_ms, UNDISTURBED) for series in measurement.series),
        ratios=tuple(_ratio(series, first) for series in measurement.series),
        batch=batch,
        threads=threads,
        machine=machine,
        disturbances=(*activity.disturbances(), *drift(measurement.calibration_ms)),
    )


def measure_at_pace(
    networks: Sequence[Untrained | bytes],
    *,
    paced: Sequence[tuple[bytes, float]],
    batch: int,
    threads: int,
    effort: Effort = QUICK,
) -> list[float]:
    """Returns the latencies of networks, ms, at the machine's pace in an earlier measurement of others.

    Beside other work, at another clock or with a cold cache a machine takes 5 to 20 % longer for all networks alike.
    Args: paced: ONNX files, which are measured again, and their earlier latencies, ms. Raises: as `measure`.
    """
    everything = [*(file for file, _ in paced), *networks]
    found = [estimate.value for estimate in measure(everything, batch=batch, threads=threads, effort=effort).ms]
    paces = [now / before for now, (_, before) in zip(found, paced, strict=False)]
    pace = float(np.median(paces)) if paces else 1.0
    return [ms / pace for ms in found[len(paced) :]]


def _ratio(series: Series, first: Series) -> Estimate:
    """Returns the ratio of a network's time to the first one's."""
    if series is first:
        return Estimate(1.0, statistics.Interval(1.0, 1.0))
    pairs = zip(series.sittings, first.sittings, strict=True)
    return statistics.ratio_of_sittings([_undisturbed_ms(own) / _undisturbed_ms(other) for own, other in pairs])


def _undisturbed_ms(sitting: Sitting) -> float:
    return statistics.quantile(sitting.samples_ms, UNDISTURBED).value


def _settle(network: DeployedNetwork, *, input_shape: tuple[int, ...], seed: int) -> None:
    """Sets the norms' statistics by random pictures, as training would.

    Otherwise values would shrink or grow from layer to layer: a deep untrained network with torch's own initial weights
    ends in denormal numbers, and takes 20 times as long as after training.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "latency"))
    images = torch.randint(0, 256, (_SETTLING_IMAGES, *input_shape), dtype=torch.uint8, generator=generator)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
