"""The operations of micro cells and of macro layers: their names and costs.

Their classes are in `nn/operations.py`, whose tables have the same names. To add one, add a line to both; a search uses
it if its space's `operations` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from foundation.document import ConfigError, unknown
from searcher.arch.costs import Cost, Sides, area_of, conv_norm, depthwise, factorized_reduction, halved


def _cell_sep_conv(sides: Sides, channels: int, *, stride: int, kernel_size: int) -> Cost:
    """All convolutions have the area of the output, because the first one is strided."""
    area = area_of(halved(sides, stride=stride))
    half = depthwise(area, channels, kernel_size=kernel_size) + conv_norm(area, channels, channels)
    return half + half


def _cell_pool(sides: Sides, channels: int, *, stride: int) -> Cost:
    return Cost()


def identity_cost(sides: Sides, channels: int, *, stride: int) -> Cost:
    return factorized_reduction(sides, channels, channels) if stride == 2 else Cost()


CELL_COSTS: dict[str, Callable[..., Cost]] = {
    "sep_conv_3x3": partial(_cell_sep_conv, kernel_size=3),
    "sep_conv_5x5": partial(_cell_sep_conv, kernel_size=5),
    "avg_pool_3x3": _cell_pool,
    "max_pool_3x3": _cell_pool,
    "identity": identity_cost,
}
"""The cost of each operation, by its name: (sides of the input, channels, stride) -> Cost.

Order matters: the published encoding's index is the position in this table, so new operations come last."""


def _layer_conv(area: int, channels: int, *, kernel_size: int) -> Cost:
    return conv_norm(area, channels, channels) + conv_norm(area, channels, channels, kernel_size=kernel_size)


def _layer_sep_conv(area: int, channels: int, *, kernel_size: int) -> Cost:
    pointwise = conv_norm(area, channels, channels)
    return pointwise + depthwise(area, channels, kernel_size=kernel_size) + pointwise


def _layer_pool(area: int, channels: int) -> Cost:
    return conv_norm(area, channels, channels)


LAYER_COSTS: dict[str, Callable[..., Cost]] = {
    "conv_3x3": partial(_layer_conv, kernel_size=3),
    "sep_conv_3x3": partial(_layer_sep_conv, kernel_size=3),
    "conv_5x5": partial(_layer_conv, kernel_size=5),
    "sep_conv_5x5": partial(_layer_sep_conv, kernel_size=5),
    "avg_pool_3x3": _layer_pool,
    "max_pool_3x3": _layer_pool,
}
"""The cost of each operation, by its name: (area of the map, channels) -> Cost.

Order matters: the published encoding's index is the position in this table, so new operations come last."""


def check_operations(operations: Sequence[str], known: Collection[str]) -> None:
    """Raises: ConfigError: there are no operations, one is named twice, or one is unknown."""
    for operation in operations:
        if operation not in known:
            raise ConfigError(f"operations: {unknown('operation', operation, known)}")
    if not operations or len(set(operations)) != len(operations):
        raise ConfigError(f"operations is {list(operations)}; expected one or more different operations")
