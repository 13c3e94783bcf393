"""3×3 pooling, computed in full SIMD vectors where torch's CPU kernels do not use them.

With channels_last, torch's kernels process one pixel's channels at a time, and so leave lanes empty if C is not a
multiple of 16. Here, sums and maxima of neighbours are computed over rows of all pixels and channels, first vertically,
then horizontally.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_LANES = 16
# In elements: the size of a tensor from which this gain outweighs the few additional operations, and the size of a part
# that stays in the cache.
_LARGE = 2**18
_CACHED = 2**17

Join = Callable[..., Tensor]


class AvgPool3x3(nn.AvgPool2d):
    """3×3 average of the pixels inside the map: [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉]."""

    def __init__(self, *, stride: int) -> None:
        super().__init__(3, stride=stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return _Average.apply(x) if self.stride == 1 and _leaves_lanes_empty(x) else super().forward(x)


class MaxPool3x3(nn.MaxPool2d):
    """3×3 maximum, with the shapes of `AvgPool3x3`. If gradients are enabled, torch computes it; it handles ties."""

    def __init__(self, *, stride: int) -> None:
        super().__init__(3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1 and not torch.is_grad_enabled() and _leaves_lanes_empty(x):
            return _joined(x, torch.maximum)
        return super().forward(x)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _joined(x, torch.add).mul_(_shares(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Each pixel is read by exactly the pixels that it reads.
        return _joined((grad * _shares(grad)).contiguous(memory_format=torch.channels_last), torch.add)


def _leaves_lanes_empty(x: Tensor) -> bool:
    # A trace with free sizes cannot compare them.
    if torch.compiler.is_compiling() or x.shape[1] % _LANES == 0:
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() < _LARGE or min(x.shape[2:]) < 2:
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def _joined(x: Tensor, join: Join) -> Tensor:
    """The sum, or maximum, of each pixel with its neighbours inside the map: [B, C, H, W], channels_last."""
    y = torch.empty_like(x)
    for part, down, out in _parts(x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)):
        _join_neighbours(part, down, join, dim=1)
        _join_neighbours(down, out, join, dim=2)
    return y


def _parts(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields parts of x and y, [B, H, W, C], of a few images each: (part of x, intermediate memory, part of y)."""
    size = max(1, _CACHED // x[0].numel())
    room = torch.empty_like(x[:size])
    for part, out in zip(x.split(size), y.split(size), strict=True):
        yield part, room[: len(part)], out


def _join_neighbours(x: Tensor, out: Tensor, join: Join, *, dim: int) -> None:
    """Write to `out` each slice of x along a dimension joined with the slices before and after it."""
    length = x.shape[dim]
    before, after = x.narrow(dim, 0, length - 1), x.narrow(dim, 1, length - 1)
    out.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
    join(after, before, out=out.narrow(dim, 1, length - 1))
    upper = out.narrow(dim, 0, length - 1)
    join(upper, after, out=upper)


def _shares(x: Tensor) -> Tensor:
    """One over the number of pixels in each average: [1, 1, H, W]."""
    rows, columns = (torch.full((size,), 3.0) for size in x.shape[2:])
    for counts in (rows, columns):
        counts[0] = counts[-1] = 2.0
    return 1 / (rows[:, None] * columns)[None, None]
