"""What the benchmark adds to a call: its medians beside those of a bare loop over the same function."""

from __future__ import annotations

import time

import numpy as np

from runtime.benchmark import Contestant, Plan, measure


def main() -> None:
    x = np.random.default_rng(0).standard_normal((200, 200))

    def work() -> np.ndarray:
        return x @ x

    plan = Plan(duration_s=2.0, min_samples=64)
    harness, bare = [], []
    for _ in range(5):
        (series,) = measure([Contestant("work", work)], plan=plan).series
        harness.append(float(np.median(series.samples_ms)))
        samples = []
        for _ in range(len(series.samples_ms)):
            started = time.perf_counter_ns()
            work()
            samples.append((time.perf_counter_ns() - started) / 1e6)
        bare.append(float(np.median(samples)))
    overhead_us = 1e3 * (float(np.median(harness)) - float(np.median(bare)))
    print("\nbenchmark harness, medians of five turns")
    print(
        f"  bare loop {np.median(bare) * 1e3:.2f} µs, harness {np.median(harness) * 1e3:.2f} µs: adds {overhead_us:.2f} µs"
    )
