"""Types of option values: several numbers, a time, the size of a dimension."""

from __future__ import annotations

import math
import re
from typing import Any

import click

REMOTE_CONCURRENCY = 64
"""Default number of requests in flight to a server."""


MOST_IN_FLIGHT = 10_000
"""Each call in flight takes a thread, and often a connection."""
MOST_CALLS_PER_S = 1_000_000
"""More than this process can make; all calls are scheduled before the first."""
_MOST_NUMBERS = 10_000


class Numbers(click.ParamType):
    """`8`, or several: `1,8,32`, or a range that includes its end: `1:8` or `1:8:2`."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float] = int, *, largest: int | None = None) -> None:
        self._kind = kind
        self._largest = largest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            ranges = [self._range(part) for part in value.split(",")]
        except (OverflowError, ValueError):
            self.fail(f"{value!r} is not a number, several as 1,8,32, or a range as 1:8:2", param, ctx)
        if (count := sum(count for _, _, count in ranges)) > _MOST_NUMBERS:
            self.fail(f"{value!r} is {count:,} numbers; at most {_MOST_NUMBERS:,} can be tried", param, ctx)
        numbers = tuple(first + index * step for first, step, count in ranges for index in range(count))
        if self._kind is int and min(numbers) < 1:
            self.fail(f"{min(numbers)} is too small; the smallest is 1", param, ctx)
        if min(numbers) <= 0:
            self.fail(f"{min(numbers):g} is too small; it must be more than 0", param, ctx)
        if self._largest is not None and max(numbers) > self._largest:
            self.fail(f"{max(numbers):,.15g} is too large; the largest is {self._largest:,}", param, ctx)
        return numbers

    def _range(self, part: str) -> tuple[float, float, int]:
        """Returns first, step and count. Raises: ValueError, OverflowError: it is not a range."""
        first, *rest = (self._kind(number) for number in part.split(":"))
        last, step = (*rest, self._kind(1))[:2] if rest else (first, self._kind(1))
        if not all(map(math.isfinite, (first, last, step))) or last < first or step <= 0 or len(rest) > 2:
            raise ValueError
        return first, step, int((last - first) / step + 1e-9) + 1


class Duration(click.ParamType):
    """`5ms`, `800us`, `0.2s`, or a plain number of milliseconds; converted to milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?(us|µs|ms|s|)", value)
        milliseconds = float(match[1]) * {"us": 1e-3, "µs": 1e-3, "s": 1e3}.get(match[2], 1.0) if match else 0.0
        if milliseconds <= 0:
            self.fail(f"{value!r} is not a time, as 5ms, 800us or 0.2s", param, ctx)
        return milliseconds


class Size(click.ParamType):
    """`name=64`: the size of a free dimension."""

    name = "name=size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        match = re.fullmatch(r"(.+)[=:](\d+)", value)
        if match is None or int(match[2]) < 1:
            self.fail(f"{value!r} is not a dimension and its size, 1 or more, as height=224", param, ctx)
        return match[1], int(match[2])
