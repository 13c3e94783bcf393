"""What a network costs as text for a terminal: a row for each of its parts, and their sum."""

from __future__ import annotations

from foundation.text import shape_text
from searcher.arch.costs import Cost
from searcher.nn.complexity import Complexity

_HEADER = ("cost", "output", "parameters", "multiply-adds", "activations")
_NUM_TEXT_COLUMNS = 2


def describe_complexity(complexity: Complexity) -> str:
    """A table: names and shapes flush left, numbers flush right."""
    rows = [
        _HEADER,
        *((f"  {part.name}", shape_text(part.shape), *_numbers(part.cost)) for part in complexity.parts),
        ("  total", "", *_numbers(complexity.total)),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(
            cell.ljust(width) if index < _NUM_TEXT_COLUMNS else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + "\n"
        for row in rows
    )


def _numbers(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.parameters:,}", f"{cost.multiply_adds:,}", f"{cost.activations:,}"
