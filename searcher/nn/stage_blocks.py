"""The operations of the stages space, one class for each family.

A block maps [B, in_channels, H, W] -> [B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉] and adds its input to the result where
both have the same shape. In a supernet it holds the weights of its widest form; each pass sets the widths, by its input
and by arguments.

To add an operation of a known family, add its name to OPERATIONS of `arch/stages/operations.py`. To add a family, add a
class here with its name in FAMILIES, and its cost there.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from searcher.arch.stages.operations import Family
from searcher.nn.kernels.norm import Norm
from searcher.nn.slices import SlicedConv, SlicedDepthwiseConv


class Widths(NamedTuple):
    """The input and output widths that a layer must support."""

    pairs: tuple[tuple[int, int], ...]
    """Of (input channels, output channels)."""

    @property
    def most_in(self) -> int:
        return max(before for before, _ in self.pairs)

    @property
    def most_out(self) -> int:
        return max(after for _, after in self.pairs)

    @property
    def may_change(self) -> bool:
        """Whether input and output channels differ in any pair."""
        return any(before != after for before, after in self.pairs)


class Residual(nn.Module):
    """Two k×k convolutions with norms, ReLU between them and after the sum; a 1×1 convolution with norm projects an
    input of another shape to the output's shape.

    Source: He et al. 2016, "Deep Residual Learning", the basic block, with shortcuts of option B.
    """

    def __init__(self, widths: Widths, *, kernel_size: int, expansion: int, stride: int, norm: Norm) -> None:
        super().__init__()
        most_in, most_out = widths.most_in, widths.most_out
        self._stride = stride
        self.conv1 = SlicedConv(most_in, most_out, kernel_size, stride=stride, allow_bfloat16=True)
        self.norm1 = norm(most_out)
        self.conv2 = SlicedConv(most_out, most_out, kernel_size, allow_bfloat16=True)
        self.norm2 = norm(most_out)
        if stride > 1 or widths.may_change:
            self.shortcut = SlicedConv(most_in, most_out, 1, stride=stride, allow_bfloat16=True)
            self.shortcut_norm = norm(most_out)

    @property
    def last_norm(self) -> nn.Module:
        """The last norm of the branch that is added to the input."""
        return self.norm2

    def forward(self, x: Tensor, out_channels: int, expansion: int) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x, out_channels)), inplace=True)
        y = self.norm2(self.conv2(y, out_channels))
        if self._stride > 1 or x.shape[1] != out_channels:
            x = self.shortcut_norm(self.shortcut(x, out_channels))
        return functional.relu(x + y, inplace=True)


class Fused(nn.Module):
    """A k×k convolution to `expansion` times as many channels, norm, ReLU, then a 1×1 convolution and norm.

    Source: Gupta and Akin 2020, "Accelerator-aware Neural Network Design using AutoML"; with ReLU, which runtimes fuse.
    """

    def __init__(self, widths: Widths, *, kernel_size: int, expansion: int, stride: int, norm: Norm) -> None:
        super().__init__()
        inner = expansion * widths.most_in
        self._stride = stride
        self.expand = SlicedConv(widths.most_in, inner, kernel_size, stride=stride, allow_bfloat16=True)
        self.expand_norm = norm(inner)
        self.project = SlicedConv(inner, widths.most_out, 1, allow_bfloat16=True)
        self.project_norm = norm(widths.most_out)

    @property
    def last_norm(self) -> nn.Module:
        """The last norm of the branch that is added to the input."""
        return self.project_norm

    def forward(self, x: Tensor, out_channels: int, expansion: int) -> Tensor:
        y = functional.relu(self.expand_norm(self.expand(x, expansion * x.shape[1])), inplace=True)
        return _sum(x, self.project_norm(self.project(y, out_channels)), stride=self._stride)


class Inverted(nn.Module):
    """A 1×1 convolution to `expansion` times as many channels, a k×k depthwise convolution, each with norm and ReLU,
    then a 1×1 convolution and norm.

    Source: Sandler et al. 2018, "MobileNetV2"; with ReLU in place of ReLU6, which runtimes fuse.
    """

    def __init__(self, widths: Widths, *, kernel_size: int, expansion: int, stride: int, norm: Norm) -> None:
        super().__init__()
        inner = expansion * widths.most_in
        self._stride = stride
        self.expand = SlicedConv(widths.most_in, inner, 1)
        self.expand_norm = norm(inner)
        self.depthwise = SlicedDepthwiseConv(inner, kernel_size, stride=stride)
        self.depthwise_norm = norm(inner)
        self.project = SlicedConv(inner, widths.most_out, 1)
        self.project_norm = norm(widths.most_out)

    @property
    def last_norm(self) -> nn.Module:
        """The last norm of the branch that is added to the input."""
        return self.project_norm

    def forward(self, x: Tensor, out_channels: int, expansion: int) -> Tensor:
        y = functional.relu(self.expand_norm(self.expand(x, expansion * x.shape[1])), inplace=True)
        y = functional.relu(self.depthwise_norm(self.depthwise(y)), inplace=True)
        return _sum(x, self.project_norm(self.project(y, out_channels)), stride=self._stride)


FAMILIES: dict[Family, Callable[..., nn.Module]] = {"residual": Residual, "fused": Fused, "inverted": Inverted}


def make_block(
    family: Family, widths: Iterable[tuple[int, int]], *, kernel_size: int, expansion: int, stride: int, norm: Norm
) -> nn.Module:
    """Returns a block that supports all given pairs of input and output channels, and expansions up to `expansion`."""
    return FAMILIES[family](
        Widths(tuple(widths)), kernel_size=kernel_size, expansion=expansion, stride=stride, norm=norm
    )


def _sum(x: Tensor, y: Tensor, *, stride: int) -> Tensor:
    return x + y if stride == 1 and x.shape[1] == y.shape[1] else y
