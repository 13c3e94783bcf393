"""Depthwise convolution; on a CPU the gradient of wide kernels' weights is computed in parts.

oneDNN's kernel for that gradient supports at most three columns of weights; for more, oneDNN computes a dense
convolution in blocks of 16 × 16 channels and discards all but the diagonals.
"""

# B batch, C channels, H height, W width, K kernel size

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_MAX_COLUMNS = 3
# On maps up to this width the dense convolution takes no longer than the parts; with many channels, and so many blocks
# computed in vain, this holds on the narrowest maps only.
_NARROW, _NARROWEST = 8, 4
_MANY_CHANNELS = 64


class DepthwiseConv(nn.Conv2d):
    """K×K convolution of every channel by itself, K odd: [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉]."""

    def __init__(self, channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(
            channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve x with another weight [C, 1, K, K], C as in x, such as a part of the layer's own."""
        if x.device.type != "cpu":
            return self._plain(x, weight)
        narrow = _NARROWEST if x.shape[1] >= _MANY_CHANNELS else _NARROW
        in_parts = self.kernel_size[1] > _MAX_COLUMNS and x.shape[3] > narrow
        with torch.autocast("cpu", enabled=False):  # on a CPU bfloat16 is slower here
            if in_parts and self.training and torch.is_grad_enabled():
                return _WideDepthwiseConv.apply(x, weight, self.stride[0])
            return self._plain(x, weight)

    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, None, self.stride, self.padding, groups=weight.shape[0])


class _WideDepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        size, stride = weight.shape[2], ctx.stride
        padding = size // 2
        grad_x, _, _ = _backward(grad, x, weight, stride=stride, padding=(padding, padding), of=(True, False))
        parts = []
        for first in range(0, size, _MAX_COLUMNS):
            columns = weight[:, :, :, first : first + _MAX_COLUMNS]
            # The columns of x that these weights read. `left` is their padding, or, if negative, the columns skipped.
            width = stride * (grad.shape[3] - 1) + columns.shape[3]
            left = padding - first
            read = _columns_of(x, -left, width)
            parts.append(_backward(grad, read, columns, stride=stride, padding=(padding, 0), of=(False, True))[1])
        return grad_x, torch.cat(parts, dim=3), None


def _columns_of(x: Tensor, first: int, width: int) -> Tensor:
    """Columns `first` to `first + width` of x, zeros outside x; `functional.pad` would fill all with zeros first."""
    begin, end = max(first, 0), min(first + width, x.shape[3])
    columns = torch.empty(*x.shape[:3], width, dtype=x.dtype, memory_format=torch.channels_last)
    columns[:, :, :, : begin - first].zero_()
    columns[:, :, :, end - first :].zero_()
    columns[:, :, :, begin - first : end - first] = x[:, :, :, begin:end]
    return columns


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int], of: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a depthwise convolution of x. Args: of: whether to compute those of its input and its weight."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride, stride], list(padding), [1, 1], False, [0, 0], x.shape[1], [*of, False]
    )
