"""Layers shared by several networks and operations. All keep the field's order ReLU, convolution, norm."""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from searcher.arch.stems import stem_steps
from searcher.nn.kernels.concat import concat
from searcher.nn.kernels.dense import Classifier, DenseConv, pointwise_conv
from searcher.nn.kernels.norm import Norm


class ReluConvNorm(nn.Module):
    """ReLU, 1×1 convolution, norm: [B, in_channels, H, W] -> [B, out_channels, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.conv = DenseConv(in_channels, out_channels, 1)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(functional.relu(x)))


class ConcatProjection(nn.Module):
    """Concatenation, ReLU, 1×1 convolution, norm, for any set of sources: n × [B, C, H, W] -> [B, C, H, W].

    Every possible source owns one C×C block of the convolution's weights.
    Source: the authors' micro code, `_enas_cell`'s `final_conv`.
    """

    def __init__(self, sources: Iterable[int], channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({str(source): DenseConv(channels, channels, 1) for source in sources})
        self.norm = norm(channels)

    def forward(self, tensors: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
        return _projected(tensors, [self.blocks[str(source)] for source in sources], self.norm)

    def of(self, sources: Sequence[int]) -> FixedProjection:
        """The projection of these sources only, with the same weights."""
        return FixedProjection([self.blocks[str(source)] for source in sources], self.norm)


class FixedProjection(nn.Module):
    """A `ConcatProjection` of fixed sources, one for each block; shares its weights."""

    def __init__(self, blocks: Sequence[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm

    def forward(self, *tensors: Tensor) -> Tensor:
        return _projected(tensors, self.blocks, self.norm)


def _projected(tensors: Sequence[Tensor], blocks: Iterable[nn.Module], norm: nn.Module) -> Tensor:
    weights: list[Tensor] = [block.weight for block in blocks]  # type: ignore[misc]
    weight = torch.cat(weights, dim=1)  # [C, n*C, 1, 1]
    merged: Tensor = norm(pointwise_conv(functional.relu(concat(tensors), inplace=True), weight))
    return merged


class FactorizedReduction(nn.Module):
    """Halve the height and width of a map: [B, in_channels, H, W] -> [B, out_channels, ⌈H/2⌉, ⌈W/2⌉].

    Two 1×1 convolutions read the pixels in even rows and columns and those in odd rows and columns; one norm follows
    their concatenation. At odd sizes the odd map is padded with a row or column of zeros.
    Source: the authors' code, `_factorized_reduction`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.even = DenseConv(in_channels, out_channels // 2, 1, stride=2)
        self.odd = DenseConv(in_channels, out_channels - out_channels // 2, 1)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        odd, missing = x[:, :, 1::2, 1::2], (0, width % 2, 0, height % 2)
        if min(height, width) == 1:  # no odd pixels, and a convolution rejects an empty map
            odd = self.odd(functional.pad(odd, missing))
        else:
            # Padded after the convolution, which maps zeros to zeros: the exporter would fuse a pad before it into a
            # padded 1×1 convolution, which OpenCV (4.14 and 5.0) computes wrongly.
            odd = self.odd(odd)
            odd = functional.pad(odd, missing) if any(missing) else odd
        return self.norm(concat([self.even(x), odd]))


class Stem(nn.Sequential):
    """The first layers: 3×3 convolutions with norms that divide the picture's height and width by `stride`.

    A stride of 1 or 2 takes one convolution; each further halving takes one more, with a ReLU between.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> None:
        layers: list[nn.Module] = []
        for step in stem_steps(stride):
            layers += [nn.ReLU(inplace=True)] if layers else []
            layers += [_conv3x3(in_channels, out_channels, stride=step), norm(out_channels)]
            in_channels = out_channels
        super().__init__(*layers)


class AuxiliaryHead(nn.Module):
    """A second classifier on an inner map of [height, width], for training only: [B, C, H, W] -> [B, num_classes].

    It begins with 5×5 pooling at stride 3, as published; a smaller map is pooled as a whole.
    Source: the authors' code, `aux_head`; loss weight 0.4.
    """

    def __init__(self, in_channels: int, num_classes: int, *, height: int, width: int, norm: Norm) -> None:
        super().__init__()
        kernel = (min(5, height), min(5, width))
        pooled = ((height - kernel[0]) // 3 + 1, (width - kernel[1]) // 3 + 1)
        self.pool = nn.AvgPool2d(kernel, stride=3)
        self.squeeze = DenseConv(in_channels, 128, 1)
        self.squeeze_norm = norm(128)
        # As TensorFlow's SAME: an even kernel is padded by one more pixel after the map than before it.
        (top, bottom), (left, right) = (((k - 1) // 2, k // 2) for k in pooled)
        self.pad = nn.ZeroPad2d((left, right, top, bottom))
        self.expand = DenseConv(128, 768, pooled)
        self.expand_norm = norm(768)
        self.classifier = Classifier(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(x))
        x = functional.relu(self.squeeze_norm(self.squeeze(x)), inplace=True)
        x = functional.relu(self.expand_norm(self.expand(self.pad(x))), inplace=True)
        return self.classifier(x.mean(dim=(2, 3)))


def drop_path(x: Tensor, prob: float | Tensor) -> Tensor:
    """Zero whole samples of a branch with probability `prob`, and scale the others so that the mean is unchanged.

    x: [B, C, H, W]; draws from the global generator of x's device.
    """
    mask = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= prob
    return x * mask.to(x.dtype).div_(1.0 - prob)


def initialise(network: nn.Module, *, generator: torch.Generator) -> None:
    """He-normal weights for every convolution and linear layer, as in the paper; norms start as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)


def _conv3x3(in_channels: int, out_channels: int, *, stride: int) -> DenseConv:
    return DenseConv(in_channels, out_channels, 3, stride=stride, padding=1)
