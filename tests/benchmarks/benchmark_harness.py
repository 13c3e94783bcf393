"""What the benchmark adds to a call, and what it makes of two sessions of one file, with a model of half a millisecond.

A bare loop over `session.run` and the harness take turns, so that both see the same machine.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import onnxruntime

from exporter.judging.peers import references
from foundation.statistics import Estimate
from runtime.benchmarking.benchmark import Contestant, Plan, measure
from runtime.benchmarking.targets import Feed, OnnxTarget, Transfer
from runtime.models.inputs import random_inputs
from runtime.models.providers import DEFAULT_TUNING
from tests.benchmarks.side_by_side import contestant

IMAGE_SHAPE = (28, 28, 1)
MODEL = "resnet-20"
TURNS = 6
SAME_FILE_RUNS = 20
SAME_FILE_PLAN = Plan(duration_s=8.0)


def main() -> None:
    data = references(image_shape=IMAGE_SHAPE, num_classes=10)[MODEL]
    target = OnnxTarget.load(MODEL, data, provider="cpu", threads=1, tuning=DEFAULT_TUNING, transfer=Transfer())
    feed = random_inputs(target.inputs, batch_size=1, sizes={}, seed=0)
    _beside_a_bare_loop(data, feed)
    _nothing_at_all()
    _same_file(target, feed)


def _beside_a_bare_loop(data: bytes, feed: Feed) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    plan = Plan(duration_s=1.5, sittings=1)
    harness, bare = [], []
    for _ in range(TURNS):
        (series,) = measure([contestant("run", lambda: session.run(None, feed))], plan=plan).series
        harness.append(float(np.median(series.samples_ms)))
        bare.append(_median_of_loop(session, feed, count=series.samples_ms.size))
    difference = float(np.median(np.array(harness) / np.array(bare))) - 1
    print(f"\n{MODEL}, batch 1, 1 thread: medians of {TURNS} turns")
    print(f"  bare loop {np.median(bare):.4f} ms, harness {np.median(harness):.4f} ms: {difference:+.2%}")


def _median_of_loop(session: onnxruntime.InferenceSession, feed: Feed, *, count: int) -> float:
    for _ in range(50):
        session.run(None, feed)
    samples = []
    for _ in range(count):
        started = time.perf_counter_ns()
        session.run(None, feed)
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return float(np.median(samples))


def _nothing_at_all() -> None:
    """A call of nothing is timed as what the harness adds."""
    (series,) = measure([contestant("nothing", lambda: None)], plan=Plan(duration_s=1.0, sittings=1)).series
    print(f"  a call of nothing is measured as {1e3 * float(np.median(series.samples_ms)):.2f} µs")


def _same_file(target: OnnxTarget, feed: Feed) -> None:
    """How often the ratio of a file with itself has an interval that holds 1, and how wide that is."""
    ratios = [_ratio_with_itself(target, feed) for _ in range(SAME_FILE_RUNS)]
    intervals = [ratio.interval for ratio in ratios if ratio.interval is not None]
    held = sum(interval.low <= 1 <= interval.high for interval in intervals)
    half_widths = [(interval.high - interval.low) / 2 for interval in intervals]
    print(f"  the same file as A and B, {SAME_FILE_PLAN.duration_s:g} s each:")
    print(f"    the interval of the ratio holds 1 in {held} of {SAME_FILE_RUNS} runs")
    print(f"    it is ±{np.median(half_widths):.2%} wide in the middle, ±{max(half_widths):.2%} at most")


def _ratio_with_itself(target: OnnxTarget, feed: Feed) -> Estimate:
    first, second = measure(
        [Contestant(name, partial(target.open, feed, None)) for name in "AB"], plan=SAME_FILE_PLAN
    ).series
    ratio = second.speed_relative_to(first)
    assert ratio is not None
    return ratio
