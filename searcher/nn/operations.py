"""The candidate operations of micro cells and of macro layers, one class each.

Every operation keeps the number of channels: [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉]; operations of macro layers
have no stride. To add an operation, add a class here, its name to CELL_OPERATIONS or LAYER_OPERATIONS, and its name and
cost to CELL_COSTS or LAYER_COSTS of `arch/operations.py`. The tests cover all operations in these tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from searcher.nn.blocks import FactorizedReduction
from searcher.nn.kernels.dense import DenseConv
from searcher.nn.kernels.depthwise import DepthwiseConv
from searcher.nn.kernels.norm import Norm
from searcher.nn.kernels.pooling import AvgPool3x3, MaxPool3x3


class SepConv(nn.Module):
    """Twice ReLU, depthwise k×k and pointwise 1×1 convolution, norm; only the first convolution is strided.

    Source: the authors' code, `_enas_conv`.
    """

    def __init__(self, channels: int, *, stride: int, norm: Norm, kernel_size: int) -> None:
        super().__init__()

        self.depthwise1 = DepthwiseConv(channels, kernel_size, stride=stride)
        self.pointwise1 = _pointwise(channels)
        self.norm1 = norm(channels)
        self.depthwise2 = DepthwiseConv(channels, kernel_size)
        self.pointwise2 = _pointwise(channels)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pointwise1(self.depthwise1(functional.relu(x))))
        return self.norm2(self.pointwise2(self.depthwise2(functional.relu(x, inplace=True))))


class AvgPool(nn.Module):
    """3×3 average of the pixels inside the map: padding is not counted."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.pool = AvgPool3x3(stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class MaxPool(nn.Module):
    """3×3 maximum."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.pool = MaxPool3x3(stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class Identity(nn.Module):
    """The tensor itself; at stride 2 a factorised reduction, the nearest thing to an identity there."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.reduction = FactorizedReduction(channels, channels, norm=norm) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.reduction is None else self.reduction(x)


class LayerConv(nn.Module):
    """1×1 convolution, norm, ReLU, then k×k convolution, norm, ReLU.

    Source: the authors' code, `_conv_branch`.
    """

    def __init__(self, channels: int, *, norm: Norm, kernel_size: int) -> None:
        super().__init__()
        self.projection = _pointwise(channels, allow_bfloat16=True)
        self.norm1 = norm(channels)
        self.conv = DenseConv(channels, channels, kernel_size, padding=kernel_size // 2, allow_bfloat16=True)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.projection(x)), inplace=True)
        return functional.relu(self.norm2(self.conv(x)), inplace=True)


class LayerSepConv(nn.Module):
    """1×1 convolution, norm, ReLU, then depthwise k×k and pointwise 1×1 convolution, norm, ReLU.

    Source: the authors' code, `_conv_branch` with `separable`.
    """

    def __init__(self, channels: int, *, norm: Norm, kernel_size: int) -> None:
        super().__init__()
        self.projection = _pointwise(channels, allow_bfloat16=True)
        self.norm1 = norm(channels)
        self.depthwise = DepthwiseConv(channels, kernel_size)
        self.pointwise = _pointwise(channels, allow_bfloat16=True)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.projection(x)), inplace=True)
        return functional.relu(self.norm2(self.pointwise(self.depthwise(x))), inplace=True)


class LayerPool(nn.Module):
    """1×1 convolution, norm, ReLU, then `pool`, one of the poolings above.

    Source: the authors' code, `_pool_branch`.
    """

    def __init__(self, channels: int, *, norm: Norm, pool: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.projection = _pointwise(channels, allow_bfloat16=True)
        self.norm = norm(channels)
        self.pool = pool(channels, stride=1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(functional.relu(self.norm(self.projection(x)), inplace=True))


CELL_OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "sep_conv_3x3": partial(SepConv, kernel_size=3),
    "sep_conv_5x5": partial(SepConv, kernel_size=5),
    "avg_pool_3x3": AvgPool,
    "max_pool_3x3": MaxPool,
    "identity": Identity,
}

LAYER_OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "conv_3x3": partial(LayerConv, kernel_size=3),
    "sep_conv_3x3": partial(LayerSepConv, kernel_size=3),
    "conv_5x5": partial(LayerConv, kernel_size=5),
    "sep_conv_5x5": partial(LayerSepConv, kernel_size=5),
    "avg_pool_3x3": partial(LayerPool, pool=AvgPool),
    "max_pool_3x3": partial(LayerPool, pool=MaxPool),
}


def make_cell_operation(name: str, channels: int, *, stride: int, norm: Norm) -> nn.Module:
    """The micro operation called `name` on `channels` channels."""
    return CELL_OPERATIONS[name](channels, stride=stride, norm=norm)


def make_layer_operation(name: str, channels: int, *, norm: Norm) -> nn.Module:
    """The macro operation called `name` on `channels` channels."""
    return LAYER_OPERATIONS[name](channels, norm=norm)


def _pointwise(channels: int, *, allow_bfloat16: bool = False) -> DenseConv:
    return DenseConv(channels, channels, 1, allow_bfloat16=allow_bfloat16)
