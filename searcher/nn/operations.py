"""The candidate operations of convolutional cells, one class each.

Every operation keeps the number of channels: [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉]. To add one: a class here,
its name in OPERATION_CLASSES and in the space's list of operations, a row in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from searcher.nn.blocks import FactorizedReduction, Norm


class SepConv(nn.Module):
    """Twice ReLU, depthwise k×k and pointwise 1×1 convolution, norm; only the first is strided.

    Source: the authors' code, `_enas_conv`.
    """

    def __init__(self, channels: int, *, stride: int, norm: Norm, kernel_size: int) -> None:
        super().__init__()

        def depthwise(stride: int) -> nn.Conv2d:
            padding = kernel_size // 2
            return nn.Conv2d(
                channels, channels, kernel_size, stride=stride, padding=padding, groups=channels, bias=False
            )

        self.depthwise1 = depthwise(stride)
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = norm(channels)
        self.depthwise2 = depthwise(1)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pointwise1(self.depthwise1(functional.relu(x))))
        return self.norm2(self.pointwise2(self.depthwise2(functional.relu(x))))


class AvgPool(nn.Module):
    """3×3 average of the pixels inside the map: padding is not counted."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class MaxPool(nn.Module):
    """3×3 maximum."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class Identity(nn.Module):
    """The tensor itself; at stride 2 a factorised reduction, the nearest thing to an identity there."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.reduction = FactorizedReduction(channels, channels, norm=norm) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.reduction is None else self.reduction(x)


OPERATION_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "sep_conv_3x3": partial(SepConv, kernel_size=3),
    "sep_conv_5x5": partial(SepConv, kernel_size=5),
    "avg_pool_3x3": AvgPool,
    "max_pool_3x3": MaxPool,
    "identity": Identity,
}


def make_operation(name: str, channels: int, *, stride: int, norm: Norm) -> nn.Module:
    """The operation called `name` on `channels` channels."""
    return OPERATION_CLASSES[name](channels, stride=stride, norm=norm)
