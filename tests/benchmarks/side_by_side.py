"""Two or more ways to do the same work, interleaved, with the ratio and its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from runtime.benchmarking.benchmark import Contestant, Opened, Plan, measure

PLAN = Plan(duration_s=3.0, min_samples=10, sittings=6, patience=4.0, warmup_s=2.0)


def contestant(name: str, call: Callable[[], object]) -> Contestant:
    """A call that is there already: nothing to open."""

    @contextmanager
    def opened() -> Iterator[Opened]:
        yield Opened(connect=lambda: call)

    return Contestant(name, opened)


def side_by_side(title: str, ways: dict[str, Callable[[], object]], *, per_call: int = 1, unit: str = "") -> None:
    """Print each way's median and how many times as fast as the first it is.

    per_call: items one call handles; if unit is given, items a second are printed too.
    """
    measurement = measure([contestant(name, call) for name, call in ways.items()], plan=PLAN)
    print(f"\n{title}")
    first = measurement.series[0]
    for series in measurement.series:
        median = float(np.median(series.samples_ms))
        rate = f"{per_call / median * 1e3:>12,.0f} {unit}/s" if unit else ""
        line = f"  {series.name:<34}{median:>10.2f} ms{rate}"
        ratio = series.speed_relative_to(first) if series is not first else None
        if ratio is not None:
            interval = f" ({ratio.interval.low:.2f} to {ratio.interval.high:.2f})" if ratio.interval else ""
            line += f"   {ratio.value:.2f} × as fast{interval}"
        print(line)
