"""A piece of a drawing: markup that knows its size."""

from __future__ import annotations

from dataclasses import dataclass

from charts.svg import element, number


@dataclass(frozen=True)
class Part:
    """Its markup begins at 0, 0."""

    width: float
    height: float
    markup: str

    def at(self, x: float, y: float) -> str:
        """The markup, moved to begin at x, y."""
        return element("g", self.markup, transform=f"translate({number(x)} {number(y)})")
