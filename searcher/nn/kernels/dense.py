"""Dense convolutions and classifiers, with the precision of their products under autocast.

On CUDA autocast decides. On a CPU, bfloat16 is used where it is faster and the network allows it: for convolutions of
at least 16 channels on large maps. Everything else stays float32: narrow and depthwise convolutions, norms, logits.
Macro networks, residual and fused stages allow bfloat16: their first gradients have a cosine of at least 0.99 with the
float32 gradients, and steps take 5 to 30 % less time. For micro cells and inverted residuals the cosine is only 0.86 to
0.98.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# With fewer channels (16 are one oneDNN block) or smaller tensors, the conversions cost what the products gain.
_WIDE = 16
_LARGE = 2**16


class DenseConv(nn.Conv2d):
    """A convolution without bias that reads all channels: [B, in_channels, H, W] -> [B, out_channels, H', W'].

    Args: allow_bfloat16: whether a CPU may compute its products in bfloat16.
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
        """Convolve x with another weight [out, in, k, k], such as a part of the layer's own, or another stride."""
        step = self.stride[0] if stride is None else stride
        # Sizes are compared last, as a trace with free sizes cannot compare them; it has no autocast.
        if not _is_autocast_on_cpu(x) or (self._allow_bfloat16 and _gains(x, weight)):
            return _convolve(x, weight, stride=step, padding=self.padding)
        with torch.autocast("cpu", enabled=False):
            return _convolve(x, weight, stride=step, padding=self.padding)


def pointwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """`DenseConv` of 1×1 with a weight [out_channels, in_channels, 1, 1] that is assembled for each call."""
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
        """Classify x with another weight [num_classes, features], such as a part of the layer's own."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(weight.dtype), weight)


def _convolve(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, ...] | str) -> Tensor:
    """Returns the result of `functional.conv2d`, with the same stride in both directions.

    oneDNN corrupts the heap in the gradient of a strided 1×1 convolution's weights, with AVX2 kernels and
    channels_last, for fewer than 8 input channels: it gathers the pixels that the convolution reads in blocks of 8
    channels, into a buffer that is too small (torch 2.11 to 2.13). So in training the pixels are gathered here, which
    at other widths takes 0 to 15 % less time than the strided convolution.
    """
    drops_pixels = stride > 1 and weight.shape[2] == weight.shape[3] == 1
    if drops_pixels and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        return functional.conv2d(x[:, :, ::stride, ::stride], weight)
    return functional.conv2d(x, weight, None, stride, padding)


def _gains(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution with a weight [O, I, K, K] is faster in bfloat16."""
    return min(weight.shape[:2]) >= _WIDE and x.numel() >= _LARGE


def _is_autocast_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
