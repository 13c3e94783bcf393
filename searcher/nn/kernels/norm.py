"""torch's batch norm, computed in full SIMD vectors where torch's CPU kernel does not use them."""

# B batch, C channels, H height, W width, M = B·H·W pixels

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]

# Numbers in an AVX-512 vector. torch's kernels are several times faster on rows of full vectors than on other rows.
_LANES = 16
# The size of a tensor, in elements, from which this gain outweighs the few additional operations.
_LARGE = 2**18


def batch_norm(*, running_statistics: bool) -> Norm:
    """Batch norm over C channels; without `running_statistics`, evaluation uses the batch's statistics, too.

    A supernet has no use for running averages: they would mix many child models and fit none.
    """
    return partial(BatchNorm, eps=1e-5, momentum=0.1, track_running_stats=running_statistics)


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`: [B, C, H, W] -> [B, C, H, W], several times faster on a CPU if C is not a multiple of 16.

    In this case, with channels_last, the batch's statistics are computed over rows that hold several pixels. On a CPU
    the result is float32 for any input dtype. With the batch's statistics, inputs may have fewer channels than the
    layer; they use the scales and shifts of the first channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() if x.device.type == "cpu" else x
        takes_batch_statistics = self.training or not self.track_running_stats
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        is_narrower = x.shape[1] < self.num_features
        if is_narrower:
            assert not self.track_running_stats
            weight, bias = weight[: x.shape[1]], bias[: x.shape[1]]
        if not takes_batch_statistics or (pixels := _pixels_a_row(x)) == 1:
            if is_narrower:
                return functional.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
            return super().forward(x)
        y, mean, var = _BatchNormOfRows.apply(x, weight, bias, self.eps, pixels)
        if self.track_running_stats:
            self._follow(mean, var, count=x.numel() // x.shape[1])
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)


class _BatchNormOfRows(torch.autograd.Function):
    """Batch norm of [M, C] read as [M/n, n·C]: n pixels per row, whose statistics are then combined."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pixels: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        rows = _rows(x, pixels)
        means, variances = torch.batch_norm_update_stats(rows[:, :, None, None], None, None, 0.0)
        means, variances = means.view(pixels, channels), variances.view(pixels, channels)
        mean = means.mean(0)
        var = variances.mean(0) + means.var(0, correction=0)
        inverse_std = torch.rsqrt(var + eps)
        scale = weight * inverse_std
        y = torch.empty_like(x)
        torch.addcmul((bias - mean * scale).repeat(pixels), rows, scale.repeat(pixels), out=_rows(y, pixels))
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.pixels = pixels
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        pixels, channels = ctx.pixels, x.shape[1]
        rows = _rows(x, pixels)
        grad_rows = _rows(grad.contiguous(memory_format=torch.channels_last), pixels)
        # The sums over the batch of the gradient, and of its product with the normalised input.
        _, grad_weights, grad_biases = torch.ops.aten.native_batch_norm_backward(
            grad_rows[:, :, None, None],
            rows[:, :, None, None],
            None,
            None,
            None,
            mean.repeat(pixels),
            inverse_std.repeat(pixels),
            True,
            0.0,
            [False, True, True],
        )
        grad_weight = grad_weights.view(pixels, channels).sum(0)
        grad_bias = grad_biases.view(pixels, channels).sum(0)
        count = x.numel() // channels
        scale = weight * inverse_std
        slope = -scale * inverse_std * grad_weight / count
        constant = -scale * grad_bias / count - slope * mean
        grad_x = torch.empty_like(x)
        torch.addcmul(constant.repeat(pixels), grad_rows, scale.repeat(pixels), out=_rows(grad_x, pixels))
        _rows(grad_x, pixels).addcmul_(rows, slope.repeat(pixels))
        return grad_x, grad_weight, grad_bias, None, None


def _pixels_a_row(x: Tensor) -> int:
    """The number of pixels per row that makes rows full vectors; 1 if there is nothing to gain."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.is_contiguous(memory_format=torch.channels_last):
        return 1
    if x.numel() < _LARGE:
        return 1
    channels = x.shape[1]
    pixels = _LANES // math.gcd(_LANES, channels)
    return pixels if x.numel() // channels % pixels == 0 else 1


def _rows(x: Tensor, pixels: int) -> Tensor:
    """[B, C, H, W] in channels_last -> [M/pixels, pixels·C], the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, pixels * x.shape[1])
