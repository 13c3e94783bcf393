"""Well-known networks to compare a searched one with, each adapted to small images like its CIFAR variant.

ResNet-20 and MobileNetV2 are published specs, and so networks like any other of ours. ShuffleNetV2 cannot be expressed
as a spec: it is defined here with torch's own layers, returns what our networks return, logits and no auxiliary logits,
and is never trained here.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from searcher.arch.catalog import published_spec
from searcher.arch.retarget import retarget
from searcher.arch.stems import stem_stride
from searcher.arch.tasks import ImageClassification
from searcher.nn.build import build_network

REFERENCE_SPECS = ("resnet-20", "mobilenet-v2-small")
"""The published specs that people would otherwise choose themselves."""
# The stages' input has at most this many pixels a side, as in the CIFAR variants.
_LARGEST_MAP = 32


def references(task: ImageClassification) -> Iterator[tuple[str, nn.Module]]:
    """Name and network of each, untrained, for the pictures and classes of a task."""
    for name in REFERENCE_SPECS:
        yield name, build_network(retarget(published_spec(name), task))
    torch.manual_seed(0)
    yield "shufflenet-v2", shufflenet_v2(task.input_shape, len(task.classes))


class _Classifier(nn.Module):
    """A trunk, the mean over the map, and one linear layer."""

    def __init__(self, trunk: nn.Module, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return self.head(self.trunk(images).mean(dim=(2, 3))), None


def shufflenet_v2(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Width 0.5. input_shape: H, W, C. Source: Ma et al. 2018, table 5; without the stem's stride and pooling."""
    stride = stem_stride(max(input_shape[:2]), largest_map=_LARGEST_MAP)
    layers: list[nn.Module] = [_conv(input_shape[-1], 24, 3, stride=stride), nn.ReLU()]
    channels = 24
    for out_channels, repeats in ((48, 4), (96, 8), (192, 4)):
        layers.append(_Shuffle(channels, out_channels, stride=2))
        layers += [_Shuffle(out_channels, out_channels, stride=1) for _ in range(repeats - 1)]
        channels = out_channels
    layers += [_conv(channels, 1024, 1), nn.ReLU()]
    return _Classifier(nn.Sequential(*layers), channels=1024, num_classes=num_classes)


class _Shuffle(nn.Module):
    """Half of the channels pass unchanged (stride 1), or all take a second branch (stride 2); both are interleaved."""

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
