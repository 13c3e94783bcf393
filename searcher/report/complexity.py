"""The cost of a network as text for a terminal: a row for each of its parts, and their sum."""

from __future__ import annotations

from foundation.tables import aligned
from foundation.text import shape_text
from searcher.arch.costs import Cost
from searcher.nn.complexity import Complexity

_HEADER = ("cost", "output", "parameters", "multiply-adds", "activations")


def describe_complexity(complexity: Complexity) -> str:
    """A table: names and shapes flush left, numbers flush right."""
    rows = [
        *((f"  {part.name}", shape_text(part.shape), *_numbers(part.cost)) for part in complexity.parts),
        ("  total", "", *_numbers(complexity.total)),
    ]
    return aligned(_HEADER, rows, left=(0, 1)) + "\n"


def _numbers(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.parameters:,}", f"{cost.multiply_adds:,}", f"{cost.activations:,}"
