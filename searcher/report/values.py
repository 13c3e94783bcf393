"""Formats values of documents: percentages, counts, durations. Values that are not numbers give None: left out."""

from __future__ import annotations


def percent(value: object, *, digits: int = 1) -> str | None:
    return f"{100 * value:.{digits}f} %" if isinstance(value, int | float) else None


def decimal(value: object) -> str | None:
    """Two digits after the point."""
    return f"{value:,.2f}" if isinstance(value, int | float) else None


def count(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def duration(seconds: object) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def three_digits(value: object) -> str | None:
    """At least three significant digits, including all digits before the point."""
    if not isinstance(value, int | float):
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def plain(value: object) -> str:
    """Any value as readable text; long text, such as a digest, is cut."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    words = str(value)
    return words if len(words) < 60 else f"{words[:12]}…"
