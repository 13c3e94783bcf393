"""The stages network: one wiring for the supernet and for every fixed network.

A fixed network is the supernet of the smallest space that contains its architecture, so both compute the same, and a
fixed network's weights are the first channels of its supernet's. In a supernet, operations of one family and kernel
size share weights, too: a smaller expansion uses the first inner channels of the largest.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from foundation.document import ConfigError
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.stages.architecture import StagesArchitecture, Stem, stage_stride
from searcher.arch.stages.operations import OPERATIONS, Operation
from searcher.arch.stems import stem_steps
from searcher.nn.banks import Bank, FixedOps, Form, SharedOps
from searcher.nn.kernels.norm import Norm
from searcher.nn.slices import SlicedClassifier, SlicedConv
from searcher.nn.stage_blocks import make_block


def build_shared(space: StagesSpace, size: StagesSize, **options: Any) -> StagesNetwork:
    """The supernet: all candidates, all widths. options: see `StagesNetwork`.

    Layers that always add their input begin as the identity: the scales of their last norms are zero. Until such a
    layer has learnt something, sampling it does not change what the channels mean. Otherwise later layers would receive
    too many different maps to learn anything. Source: Goyal et al. 2017, section 5.1.
    """
    supernet = StagesNetwork(space, SharedOps(), **options)
    for layers in supernet.stages:
        for block in itertools.chain.from_iterable(layer.values() for layer in layers[1:]):  # type: ignore[index]
            nn.init.zeros_(block.last_norm.weight)
    return supernet


def build_fixed(architecture: StagesArchitecture, size: StagesSize, *, form: Form, **options: Any) -> StagesNetwork:
    """The network of one architecture, the same in both forms. options: see `StagesNetwork`."""
    return StagesNetwork(StagesSpace.around(architecture), FixedOps(architecture.used()), **options)


def make_operation(name: str, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> nn.Module:
    """Returns a single layer."""
    return _Layer(name, in_channels, out_channels, stride=stride, norm=norm)


class StagesNetwork(nn.Module):
    """Stem, stages, classifier: images [B, C, H, W] and an architecture of the space -> logits [B, num_classes].

    Args: input_shape: H, W, C. dropout_prob: before the classifier, in training.
    Raises: ConfigError: an auxiliary head is asked for.
    """

    def __init__(
        self,
        space: StagesSpace,
        bank: Bank,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        norm: Norm,
        dropout_prob: float = 0.0,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        if auxiliary:
            raise ConfigError("a stages network has no auxiliary head; auxiliary_weight must be 0")
        self.stem = _Stem(input_shape[-1], max(space.stem_channels), most_stride=max(space.stem_strides), norm=norm)
        self.stages = nn.ModuleList()
        before = space.stem_channels
        for number, (widths, depth) in enumerate(zip(space.stage_channels, space.max_layers, strict=True)):
            layers = nn.ModuleList()
            for position in range(depth):
                # Only the first layer of a stage changes widths.
                pairs = [(width, width) for width in widths] if position else itertools.product(before, widths)
                names = bank.select(("layer", str(number), str(position)), space.operations)
                stride = 1 if position else stage_stride(number)
                layers.append(_blocks(names, list(pairs), stride=stride, norm=norm))
            self.stages.append(layers)
            before = widths
        self._dropout_prob = dropout_prob
        self.classifier = SlicedClassifier(max(before), num_classes)

    def forward(
        self, images: Tensor, architecture: StagesArchitecture, *, drop_path_prob: float = 0.0
    ) -> tuple[Tensor, None]:
        """Logits [B, num_classes]; there is no auxiliary head.

        Raises: ConfigError: `drop_path_prob` is not 0.
        """
        if drop_path_prob > 0:
            raise ConfigError("a stages network has no paths to drop; drop_path_prob must be 0")
        x = self.stem(images, architecture.stem)
        for blocks, stage in zip(self.stages, architecture.stages, strict=True):
            for name, choices in zip(stage.layers, blocks, strict=False):  # type: ignore[call-overload]
                operation = OPERATIONS[name]
                x = choices[operation.block](x, stage.channels, operation.expansion)
        features = functional.dropout(x.mean(dim=(2, 3)), self._dropout_prob, self.training)  # [B, C]
        return self.classifier(features), None


class _Stem(nn.Module):
    """3×3 convolutions, each with norm and ReLU: [B, in_channels, H, W] -> [B, stem.channels, ⌈H/stride⌉, ⌈W/stride⌉].

    Strides of 1 and 2 need one convolution, with the same weights; each further halving needs one more.
    """

    def __init__(self, in_channels: int, out_channels: int, *, most_stride: int, norm: Norm) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in stem_steps(most_stride):
            self.convs.append(SlicedConv(in_channels, out_channels, 3))
            self.norms.append(norm(out_channels))
            in_channels = out_channels

    def forward(self, x: Tensor, stem: Stem) -> Tensor:
        for conv, norm, stride in zip(self.convs, self.norms, stem_steps(stem.stride), strict=False):
            x = functional.relu(norm(conv(x, stem.channels, stride=stride)), inplace=True)
        return x


class _Layer(nn.Module):
    def __init__(self, name: str, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        operation = OPERATIONS[name]
        self.block = _block(operation, [(in_channels, out_channels)], stride=stride, norm=norm)
        self._widths = (out_channels, operation.expansion)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, *self._widths)


def _blocks(names: Iterable[str], pairs: list[tuple[int, int]], *, stride: int, norm: Norm) -> nn.ModuleDict:
    """Returns a block for each family and kernel size among the operations of a layer, by `Operation.block`."""
    widest: dict[str, Operation] = {}
    for operation in (OPERATIONS[name] for name in names):
        widest[operation.block] = max(operation, widest.get(operation.block, operation), key=lambda o: o.expansion)
    return nn.ModuleDict(
        {name: _block(operation, pairs, stride=stride, norm=norm) for name, operation in widest.items()}
    )


def _block(operation: Operation, pairs: list[tuple[int, int]], *, stride: int, norm: Norm) -> nn.Module:
    """The block of an operation, for each of the pairs of input and output channels."""
    return make_block(
        operation.family,
        pairs,
        kernel_size=operation.kernel_size,
        expansion=operation.expansion,
        stride=stride,
        norm=norm,
    )
