"""Dense convolutions and classifiers, with the precision of their products under autocast.

On CUDA autocast decides. A CPU takes in bfloat16 what is faster so and where a network allows it: convolutions of 16
channels and more on large maps. All else stays float32: narrow convolutions, depthwise ones, norms, logits. Macro
networks, residual and fused stages allow it: their first gradients have a cosine of 0.99 and more with float32's, and
steps take 5 to 30 % less time. Those of micro cells and of inverted residuals turn away further (0.86 to 0.98).
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Below this width, one block of oneDNN's, and in smaller tensors, conversions cost what products gain.
_WIDE = 16
_LARGE = 2**16


class DenseConv(nn.Conv2d):
    """A convolution without bias that reads all channels: [B, in_channels, H, W] -> [B, out_channels, H', W'].

    Args: allow_bfloat16: whether a CPU may take its products in bfloat16.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        allow_bfloat16: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        self._allow_bfloat16 = allow_bfloat16

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)

    def convolve(self, x: Tensor, weight: Tensor, *, stride: int | None = None) -> Tensor:
        """The same with another weight, such as a part of its own, [out, in, k, k], or another stride."""
        step = self.stride[0] if stride is None else stride
        # Sizes last: a trace with free sizes, which has no autocast, cannot compare them.
        if not _is_autocast_on_cpu(x) or (self._allow_bfloat16 and _gains(x, weight)):
            return _convolve(x, weight, stride=step, padding=self.padding)
        with torch.autocast("cpu", enabled=False):
            return _convolve(x, weight, stride=step, padding=self.padding)


def pointwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """`DenseConv` of 1×1 with a weight [out_channels, in_channels, 1, 1] that is put together for the occasion."""
    if not _is_autocast_on_cpu(x):
        return functional.conv2d(x, weight)
    with torch.autocast("cpu", enabled=False):
        return functional.conv2d(x, weight)


class Classifier(nn.Linear):
    """The last layer, without bias and in float32 under autocast, too: [B, features] -> logits [B, num_classes]."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x, self.weight)

    def classify(self, x: Tensor, weight: Tensor) -> Tensor:
        """The same with another weight, such as a part of its own: [num_classes, features]."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(weight.dtype), weight)


def _convolve(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, ...] | str) -> Tensor:
    """What `functional.conv2d` gives, of a square stride.

    oneDNN corrupts the heap in the gradient of a strided 1×1 convolution's weights, with AVX2 kernels and
    channels_last, for fewer than 8 input channels: it gathers the pixels that the convolution reads in blocks of 8
    channels, into a buffer without room for them (torch 2.11 to 2.13). So in training the pixels are gathered here,
    which at other widths takes 0 to 15 % less time than the strided convolution.
    """
    drops_pixels = stride > 1 and weight.shape[2] == weight.shape[3] == 1
    if drops_pixels and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        return functional.conv2d(x[:, :, ::stride, ::stride], weight)
    return functional.conv2d(x, weight, None, stride, padding)


def _gains(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of a weight [O, I, K, K] is faster in bfloat16."""
    return min(weight.shape[:2]) >= _WIDE and x.numel() >= _LARGE


def _is_autocast_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
