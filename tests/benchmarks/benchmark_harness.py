"""What the benchmark adds to a call: its medians beside those of a bare loop over the same function."""

from __future__ import annotations

import time

import numpy as np

from runtime.benchmark import Plan, measure
from tests.benchmarks.side_by_side import contestant


def main() -> None:
    x = np.random.default_rng(0).standard_normal((200, 200))

    def work() -> np.ndarray:
        return x @ x

    plan = Plan(duration_s=2.0, min_samples=64, sittings=1)
    harness, bare = [], []
    for _ in range(5):
        (series,) = measure([contestant("work", work)], plan=plan).series
        harness.append(float(np.median(series.samples_ms)))
        samples = []
        for _ in range(len(series.samples_ms)):
            started = time.perf_counter_ns()
            work()
            samples.append((time.perf_counter_ns() - started) / 1e6)
        bare.append(float(np.median(samples)))
    bare_us, harness_us = (1e3 * float(np.median(medians)) for medians in (bare, harness))
    print("\nbenchmark harness, medians of five turns")
    print(f"  bare loop {bare_us:.2f} µs, harness {harness_us:.2f} µs: adds {harness_us - bare_us:.2f} µs")
