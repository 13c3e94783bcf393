"""A piece of a drawing: markup with its size."""

from __future__ import annotations

from dataclasses import dataclass

from charts.svg import element, number


@dataclass(frozen=True)
class Part:
    """A piece of markup with its upper left corner at 0, 0."""

    width: float
    height: float
    markup: str

    def at(self, x: float, y: float) -> str:
        """The markup, moved to x, y."""
        return element("g", self.markup, transform=f"translate({number(x)} {number(y)})")
