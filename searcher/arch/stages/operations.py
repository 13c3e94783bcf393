"""The operations of the stages space: their families and costs.

A family's class is in `nn/stage_blocks.py`. An operation of a known family is a line in OPERATIONS; a search uses it if
`StagesSpace.operations` names it.

Source: He et al. 2016, Sandler et al. 2018 and Gupta and Akin 2020 for the three families.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from searcher.arch.costs import Cost, conv_norm, depthwise, norm

Family = Literal["residual", "fused", "inverted"]


class Operation(NamedTuple):
    """The properties that the name of an operation stands for."""

    family: Family
    kernel_size: int
    expansion: int = 1
    """Ratio of inner channels to input channels."""

    @property
    def block(self) -> str:
        """The name of the block that shares weights in a supernet: one family and kernel, with all its expansions."""
        return f"{self.family}_{self.kernel_size}x{self.kernel_size}"


# Order matters: the integer encoding's index is the position in this table, so new operations come last.
OPERATIONS: dict[str, Operation] = {
    "residual_3x3": Operation("residual", 3),
    "fused_3x3_e2": Operation("fused", 3, 2),
    "fused_3x3_e4": Operation("fused", 3, 4),
    "inverted_3x3_e2": Operation("inverted", 3, 2),
    "inverted_3x3_e3": Operation("inverted", 3, 3),
    "inverted_3x3_e4": Operation("inverted", 3, 4),
    "inverted_3x3_e6": Operation("inverted", 3, 6),
    "inverted_5x5_e2": Operation("inverted", 5, 2),
    "inverted_5x5_e4": Operation("inverted", 5, 4),
    "inverted_5x5_e6": Operation("inverted", 5, 6),
}
STANDARD_OPERATIONS = (
    "residual_3x3",
    "fused_3x3_e2",
    "fused_3x3_e4",
    "inverted_3x3_e2",
    "inverted_3x3_e3",
    "inverted_3x3_e4",
    "inverted_3x3_e6",
    "inverted_5x5_e2",
    "inverted_5x5_e4",
    "inverted_5x5_e6",
)
"""The default operations of a space: a new operation changes no search until a space names it."""
ABSENT = "absent"
"""The decision to omit a layer; architectures do not contain it."""


def _residual(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (_, area), (before, after) = areas, channels
    kernel_size = operation.kernel_size
    cost = conv_norm(area, before, after, kernel_size=kernel_size)
    cost += conv_norm(area, after, after, kernel_size=kernel_size)
    return cost + conv_norm(area, before, after) if stride > 1 or before != after else cost


def _fused(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (_, area), (before, after) = areas, channels
    inner = operation.expansion * before
    return conv_norm(area, before, inner, kernel_size=operation.kernel_size) + conv_norm(area, inner, after)


def _inverted(areas: tuple[int, int], channels: tuple[int, int], operation: Operation, *, stride: int) -> Cost:
    (in_area, area), (before, after) = areas, channels
    inner = operation.expansion * before
    middle = depthwise(area, inner, kernel_size=operation.kernel_size) + norm(inner)
    return conv_norm(in_area, before, inner) + middle + conv_norm(area, inner, after)


_FAMILIES: dict[Family, Callable[..., Cost]] = {"residual": _residual, "fused": _fused, "inverted": _inverted}


def layer_cost(name: str, areas: tuple[int, int], channels: tuple[int, int], *, stride: int) -> Cost:
    """Returns the cost of a layer. areas, channels: of its input and of its output."""
    operation = OPERATIONS[name]
    return _FAMILIES[operation.family](areas, channels, operation, stride=stride)
