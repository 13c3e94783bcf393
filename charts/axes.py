"""Common parts of charts: axes with round ticks, a grid, and the style in light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from charts.svg import FONT, element, escaped, number, text

FONT_PX = 12.0
NUM_COLOURS = 4
_NUM_TICKS = 5
# Values with a smaller ratio are drawn as if they were equal: tick labels between them would not differ after rounding.
_LEAST_RATIO = 1 + 1e-5

# Values with a smaller relative difference are equal: such differences come from rounding.
_ROUNDING = 1e-9

# Okabe and Ito's hues, darker in light mode and lighter in dark mode. Order matters: series use them in turn.
STYLE = """
.chart{font:12px FONT;max-width:100%;height:auto}
.chart text{fill:#1f2328}.chart .muted{fill:#59636e}.chart .b{font-weight:600}.chart .mid{text-anchor:middle}
.chart .end{text-anchor:end}.chart .grid{stroke:#d1d9e0;fill:none}.chart .axis{stroke:#818b98;fill:none}
.chart .c0{color:#0072b2}.chart .c1{color:#b35900}.chart .c2{color:#007a59}.chart .c3{color:#9c4679}
.chart .curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.chart .leader{fill:none;stroke:currentColor}.chart .ring{fill:none;stroke:currentColor;stroke-width:2}
.chart .dashed{stroke-dasharray:5 4}.chart .dot,.chart .name{fill:currentColor}
.chart .band{fill:currentColor;fill-opacity:.16}
@media screen and (prefers-color-scheme:dark){
.chart text{fill:#e6edf3}.chart .muted{fill:#9da7b3}.chart .grid{stroke:#30363d}.chart .axis{stroke:#818b98}
.chart .c0{color:#56b4e9}.chart .c1{color:#f0a63c}.chart .c2{color:#2fc89b}.chart .c3{color:#e0a0c6}
.chart .name{fill:currentColor}}
""".replace("FONT", FONT).replace("\n", "")


@dataclass(frozen=True)
class Axis:
    """Maps values from `low` to `high` to pixels; `ticks` are round numbers within it."""

    low: float
    high: float
    start_px: float
    end_px: float
    ticks: tuple[float, ...]
    percent: bool = False
    """Whether labels are in per cent; the values stay fractions."""
    is_log: bool = False
    """Whether equal distances are equal ratios; all values are positive then."""

    @classmethod
    def around(
        cls,
        values: Sequence[float],
        start_px: float,
        end_px: float,
        *,
        whole: bool = False,
        margin: float = 0.0,
        percent: bool = False,
    ) -> Axis:
        """Returns an axis over all values, and `margin` times their range beyond them. `whole`: ticks at integers."""
        low, high = min(values), max(values)
        if high - low <= _ROUNDING * max(abs(low), abs(high)):
            low, high = (low - 0.5, high + 0.5) if whole or low == 0 else (low - abs(low) / 10, low + abs(low) / 10)
        low, high = low - margin * (high - low), high + margin * (high - low)
        return cls(low, high, start_px, end_px, tuple(round_numbers(low, high, whole=whole)), percent)

    @classmethod
    def logarithmic(
        cls,
        values: Sequence[float],
        start_px: float,
        end_px: float,
        *,
        ticks: Sequence[float] = (),
        margin: float = 0.0,
    ) -> Axis:
        """Returns a logarithmic axis over all values, with ticks at `ticks` or else at round numbers."""
        ratio = max(values) / min(values)
        if ratio < _LEAST_RATIO:
            ratio = 2.0
        low, high = min(values) / ratio**margin, max(values) * ratio**margin
        return cls(low, high, start_px, end_px, tuple(ticks) or tuple(_round_ratios(low, high)), is_log=True)

    def px(self, value: float) -> float:
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
            return self.start_px + share * (self.end_px - self.start_px)
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)

    def labels(self) -> list[str]:
        """Returns the tick labels, with as many decimals as needed to distinguish them."""
        if self.is_log:
            return [f"{tick:g}" for tick in self.ticks]
        factor, unit = (100, " %") if self.percent else (1, "")
        step = min((b - a for a, b in pairwise(self.ticks)), default=1.0) * factor
        decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
        return [f"{tick * factor:.{decimals}f}{unit}" for tick in self.ticks]


def round_numbers(low: float, high: float, *, count: int = _NUM_TICKS, whole: bool = False) -> list[float]:
    """About `count` numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    assert low < high

    def marks(step: float) -> list[float]:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [float(f"{index * step:.12g}") for index in range(first, last + 1)]

    power = 10.0 ** math.floor(math.log10((high - low) / count))
    candidates = [marks(max(1.0, round(step)) if whole else step) for step in (power, 2 * power, 5 * power, 10 * power)]
    # An axis with fewer than three ticks is hard to read, but whole numbers may leave no choice.
    enough = [found for found in candidates if len(found) >= 3] or candidates[:1]
    return min(enough, key=lambda found: abs(len(found) - 1 - count))


def _round_ratios(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten within a range.

    Over more than four decades only the powers; evenly spaced round numbers if those are fewer than three.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if high > 1e4 * low else (1, 2, 5)
    found = [mark for power in powers for step in steps if low <= (mark := step * 10.0**power) <= high]
    return found if len(found) >= 3 else round_numbers(low, high)


def chart(*parts: str, title: str, description: str, width: float, height: float) -> str:
    """The SVG element around a chart's parts, its title at the top left."""
    return element(
        "svg",
        element("title", escaped(title)),
        element("desc", escaped(description)),
        element("style", STYLE),
        text(title, 0, 14, "b"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        role="img",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
    )


def x_marks(axis: Axis, *, bottom: float, label: str) -> Iterator[str]:
    """Yields the x axis at the height `bottom`, its ticks and its label."""
    for tick, words in zip(axis.ticks, axis.labels(), strict=True):
        yield element("path", class_="axis", d=f"M{number(axis.px(tick))} {number(bottom)}v4")
        yield text(words, axis.px(tick), bottom + 18, "muted mid")
    yield element("path", class_="axis", d=f"M{number(axis.start_px)} {number(bottom)}H{number(axis.end_px)}")
    yield text(label, (axis.start_px + axis.end_px) / 2, bottom + 34, "muted mid")


def y_marks(axis: Axis, *, left: float, right: float, label: str) -> Iterator[str]:
    """Yields grid lines from `left` to `right`, their values, and the y axis's label, below the title."""
    for tick, words in zip(axis.ticks, axis.labels(), strict=True):
        y = axis.px(tick)
        yield element("path", class_="grid", d=f"M{number(left)} {number(y)}H{number(right)}")
        yield text(words, left - 7, y + 4, "muted end")
    yield text(label, 0, 30, "muted")


def value_text(value: float, *, percent: bool) -> str:
    """Formats a value: `77.3 %`, or three significant digits."""
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"
