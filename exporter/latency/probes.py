"""Small networks around one fused block each, which measure the block's latency inside a network.

A probe is a 1×1 convolution that makes the block's input, the block, and a mean over its output; its *frame* is the
same without the block. The difference of their latencies excludes a call's overhead, and the layout changes at both
ends.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from exporter.latency.measure import Sized
from searcher.latency.blocks import CONCAT, HALVE, HEAD, PROJECT, STEM, SUM, Block
from searcher.nn.blocks import FactorizedReduction, ReluConvNorm, Stem
from searcher.nn.kernels.concat import concat
from searcher.nn.kernels.norm import batch_norm
from searcher.spaces import search_space

_NORM = batch_norm(running_statistics=True)


def probe(space: str, block: Block) -> Sized:
    """The probe of a block of a space."""
    return Sized(_Probe(space, block), (block.height, block.width, _image_channels(block)))


def frame(block: Block) -> Sized:
    """Returns the probe of a block without the block; blocks with equal inputs share a frame."""
    return Sized(_Frame(block), (block.height, block.width, _image_channels(block)))


def frame_key(block: Block) -> Block:
    """Returns a key that is equal for blocks that share a frame."""
    channels = block.in_channels
    return Block(STEM if block.operation == STEM else "", channels, channels, block.height, block.width)


class _Frame(nn.Module):
    """Images [B, image channels, H, W] -> the mean of the block's input, as logits and no auxiliary logits."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        # A stem reads the pictures themselves.
        is_stem = block.operation == STEM
        self.entry = nn.Identity() if is_stem else nn.Conv2d(1, block.in_channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return self.entry(images).mean(dim=(2, 3)), None


class _Probe(_Frame):
    def __init__(self, space: str, block: Block) -> None:
        super().__init__(block)
        self.block = _module(space, block)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        x = self.block(self.entry(images))
        return x if x.ndim == 2 else x.mean(dim=(2, 3)), None


def _image_channels(block: Block) -> int:
    return block.in_channels if block.operation == STEM else 1


def _module(space: str, block: Block) -> nn.Module:
    """[B, in_channels, H, W] -> [B, out_channels, H', W'], or [B, out_channels] for the head."""
    operation, in_channels, out_channels = block.operation, block.in_channels, block.out_channels
    if operation == STEM:
        return Stem(in_channels, out_channels, stride=block.stride, norm=_NORM)
    if operation == PROJECT:
        return ReluConvNorm(in_channels, out_channels, norm=_NORM)
    if operation == HALVE:
        return FactorizedReduction(in_channels, out_channels, norm=_NORM)
    if operation == CONCAT:
        return _Concat(out_channels // in_channels)
    if operation == SUM:
        return _Sum()
    if operation == HEAD:
        return _Head(in_channels, out_channels)
    wiring = search_space(space).wiring
    module: nn.Module = wiring.make_operation(operation, in_channels, out_channels, stride=block.stride, norm=_NORM)
    return module


class _Concat(nn.Module):
    """[B, C, H, W] -> [B, n*C, H, W]; the tensors differ, or a runtime would join them at no cost."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def forward(self, x: Tensor) -> Tensor:
        return concat([x, *(x + number for number in range(1, self._count))])


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(x)


class _Head(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
