"""Shows the progress of many equal steps on stderr: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_S = 10.0
"""Seconds between two lines in a log."""


@contextmanager
def steps(description: str, *, total: int, unit: str) -> Iterator[Callable[[], object]]:
    """Yields a function to call after each of at most `total` steps. Work of under ten seconds prints no line."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=description, unit=unit, leave=False, dynamic_ncols=True) as bar:
            yield bar.update
        return
    start = last = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= _LINE_S:
            last = now
            left_s = (now - start) / done * (total - done)
            print(
                f"{description}: {done:,} of {total:,} {unit}s, {_duration(left_s)} left", file=sys.stderr, flush=True
            )

    yield step


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def progress(description: str, *, total: float) -> Iterator[Callable[[float], object]]:
    """Yields a function to call with each amount of work done; `total` is the expected sum."""
    if not sys.stderr.isatty():
        print(description, file=sys.stderr, flush=True)
        yield lambda amount: None
        return
    from tqdm import tqdm

    layout = "{desc} {bar} {percentage:3.0f} %, {remaining} left"
    with tqdm(total=total, desc=description, leave=False, bar_format=layout, dynamic_ncols=True) as bar:
        # Work beyond the expected total must not push the bar past its end.
        yield lambda amount: bar.update(min(amount, total - bar.n))
