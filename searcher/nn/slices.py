"""Layers that compute with the first channels of their weights, so that networks of many widths share them.

The widest network's weights contain those of all others, which use its first output, input and inner channels. A layer
of full width uses its weights as they are. Unused channels of a weight that a pass uses get a gradient of zero, so an
optimiser's weight decay and momentum act on them; a weight that the pass does not use gets no gradient.

Source: Yu et al. 2019, "Slimmable Neural Networks"; Bender et al. 2020 (TuNAS), section 4.
"""

# B batch, C channels, H height, W width, K kernel size, O and I output and input channels

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from searcher.nn.kernels.dense import Classifier, DenseConv
from searcher.nn.kernels.depthwise import DepthwiseConv


class SlicedConv(DenseConv):
    """A convolution of the widest network: [B, C, H, W] -> [B, out_channels, H', W'].

    C and out_channels are at most the layer's own. Padding keeps the size of the map at stride 1. A pass may use a
    stride other than the layer's own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        allow_bfloat16: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            allow_bfloat16=allow_bfloat16,
        )

    def forward(self, x: Tensor, out_channels: int, *, stride: int | None = None) -> Tensor:  # type: ignore[override]
        return self.convolve(x, _first_channels(self.weight, out_channels, x.shape[1]), stride=stride)


class SlicedDepthwiseConv(DepthwiseConv):
    """A depthwise convolution of the widest network, for at most its own channels C: [B, C, H, W] ->
    [B, C, ⌈H/stride⌉, ⌈W/stride⌉].
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, _first_channels(self.weight, x.shape[1], 1))


class SlicedClassifier(Classifier):
    """The last layer of the widest network, for at most its own features C: [B, C] -> logits [B, num_classes]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x, _first_channels(self.weight, self.out_features, x.shape[1]))


def _first_channels(weight: Tensor, out_channels: int, in_channels: int) -> Tensor:
    """The part of a weight [O, I, …] that belongs to the first channels: [out_channels, in_channels, …]."""
    if weight.shape[:2] == (out_channels, in_channels):
        return weight
    return _FirstChannels.apply(weight, out_channels, in_channels)


class _FirstChannels(torch.autograd.Function):
    """`weight[:out_channels, :in_channels]`, whose gradient is extended to the weight's shape and layout in one pass.

    torch takes one pass for each axis, and a third to convert the result to a channels_last weight's layout.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, out_channels: int, in_channels: int) -> Tensor:
        ctx.save_for_backward(weight)
        return weight[:out_channels, :in_channels]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        whole = torch.zeros_like(weight)
        whole[: grad.shape[0], : grad.shape[1]] = grad
        return whole, None, None
