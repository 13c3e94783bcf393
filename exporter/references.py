"""Networks that everybody knows, of torch's own layers, to measure a searched one beside: MobileNetV2, ResNet-20 and
ShuffleNetV2, each cut to small images as its CIFAR variant is.

They give what our networks give, logits and no auxiliary logits, and are never trained here.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

# Stages see images of this many pixels at most, as in the CIFAR variants.
_LARGEST_MAP = 32


class _Classifier(nn.Module):
    """A trunk, the mean over the map, and one linear layer."""

    def __init__(self, trunk: nn.Module, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return self.head(self.trunk(images).mean(dim=(2, 3))), None


def mobilenet_v2(in_channels: int, num_classes: int, *, image_size: int) -> nn.Module:
    """Width 1. Source: Sandler et al. 2018, table 2; the first strides are left out."""
    layers: list[nn.Module] = [_conv(in_channels, 32, 3, stride=_stem_stride(image_size)), nn.ReLU6()]
    channels = 32
    stages = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, out_channels, repeats, stride in stages:
        for index in range(repeats):
            layers.append(_InvertedResidual(channels, out_channels, expansion=expansion, stride=1 if index else stride))
            channels = out_channels
    layers += [_conv(channels, 1280, 1), nn.ReLU6()]
    return _Classifier(nn.Sequential(*layers), channels=1280, num_classes=num_classes)


def resnet_20(in_channels: int, num_classes: int, *, image_size: int) -> nn.Module:
    """Source: He et al. 2016, section 4.2; shortcuts that change shape are 1×1 convolutions."""
    layers: list[nn.Module] = [_conv(in_channels, 16, 3, stride=_stem_stride(image_size)), nn.ReLU()]
    channels = 16
    for out_channels in (16, 32, 64):
        for index in range(3):
            layers.append(_Residual(channels, out_channels, stride=2 if index == 0 and out_channels > 16 else 1))
            channels = out_channels
    return _Classifier(nn.Sequential(*layers), channels=64, num_classes=num_classes)


def shufflenet_v2(in_channels: int, num_classes: int, *, image_size: int) -> nn.Module:
    """Width 0.5. Source: Ma et al. 2018, table 5; without the stem's stride and pooling."""
    layers: list[nn.Module] = [_conv(in_channels, 24, 3, stride=_stem_stride(image_size)), nn.ReLU()]
    channels = 24
    for out_channels, repeats in ((48, 4), (96, 8), (192, 4)):
        layers.append(_Shuffle(channels, out_channels, stride=2))
        layers += [_Shuffle(out_channels, out_channels, stride=1) for _ in range(repeats - 1)]
        channels = out_channels
    layers += [_conv(channels, 1024, 1), nn.ReLU()]
    return _Classifier(nn.Sequential(*layers), channels=1024, num_classes=num_classes)


REFERENCES: dict[str, Callable[..., nn.Module]] = {
    "MobileNetV2-like": mobilenet_v2,
    "ResNet-20-like": resnet_20,
    "ShuffleNetV2-like": shufflenet_v2,
}


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        expand = [_conv(in_channels, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand, _conv(inner, inner, 3, stride=stride, groups=inner), nn.ReLU6(), _conv(inner, out_channels, 1)
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class _Residual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(in_channels, out_channels, 3, stride=stride), nn.ReLU(), _conv(out_channels, out_channels, 3)
        )
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if is_same else _conv(in_channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.layers(x) + self.shortcut(x))


class _Shuffle(nn.Module):
    """Half of the channels pass by (stride 1), or take a branch of their own (stride 2); then both are interleaved."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        taken = in_channels if stride == 2 else half
        self.layers = nn.Sequential(
            _conv(taken, half, 1),
            nn.ReLU(),
            _conv(half, half, 3, stride=stride, groups=half),
            _conv(half, half, 1),
            nn.ReLU(),
        )
        self.other = (
            nn.Sequential(_conv(taken, taken, 3, stride=2, groups=taken), _conv(taken, half, 1), nn.ReLU())
            if stride == 2
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        pair = torch.stack([self.other(first), self.layers(second)], dim=2)  # [B, C/2, 2, H, W]
        return pair.flatten(1, 2)  # [B, C, H, W]


def _conv(in_channels: int, out_channels: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch norm."""
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _stem_stride(image_size: int) -> int:
    """The power of two that brings images to `_LARGEST_MAP` pixels or fewer."""
    return 2 ** max(0, math.ceil(math.log2(image_size / _LARGEST_MAP)))
