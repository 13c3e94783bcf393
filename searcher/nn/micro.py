"""The micro network: one wiring for the supernet and for every fixed network.

What differs between search and final network is the argument `form`:
  search  a 1×1 convolution, with one block of weights per possible leaf, merges a cell's loose ends to C channels;
  final   they are concatenated, and the next cell's calibration has one more 1×1 convolution.

Source: Pham et al. 2018, section 2.4, and the authors' code where the paper is silent.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from searcher.arch.operations import CELL_COSTS
from searcher.arch.spaces.micro import (
    CELL_KINDS,
    NUM_INPUTS,
    SLOTS,
    Cell,
    CellKind,
    MicroArchitecture,
    MicroSize,
    MicroSpace,
    loose_ends,
)
from searcher.nn.banks import Bank, FixedOps, Form, OperationBank, SharedOps
from searcher.nn.blocks import (
    AuxiliaryHead,
    ConcatProjection,
    FactorizedReduction,
    ReluConvNorm,
    Stem,
    drop_path,
)
from searcher.nn.kernels.concat import concat
from searcher.nn.kernels.dense import Classifier
from searcher.nn.kernels.norm import Norm
from searcher.nn.operations import make_cell_operation


def build_shared(space: MicroSpace, size: MicroSize, **options: Any) -> MicroNetwork:
    """The supernet: all candidates, in the search form. options: see `MicroNetwork`."""
    leaves = dict.fromkeys(CELL_KINDS, 1)
    return MicroNetwork(
        size,
        SharedOps(),
        num_nodes=space.num_nodes,
        operations=space.operations,
        leaves=leaves,
        form="search",
        **options,
    )


def build_fixed(architecture: MicroArchitecture, size: MicroSize, *, form: Form, **options: Any) -> MicroNetwork:
    """The network of one architecture. options: see `MicroNetwork`."""
    leaves = {kind: len(loose_ends(architecture.cell(kind))) for kind in CELL_KINDS}
    num_nodes = len(architecture.normal)
    bank = FixedOps(architecture.used())
    return MicroNetwork(
        size, bank, num_nodes=num_nodes, operations=tuple(CELL_COSTS), leaves=leaves, form=form, **options
    )


def make_operation(name: str, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> nn.Module:
    """Returns a single operation; it keeps the number of channels."""
    return make_cell_operation(name, in_channels, stride=stride, norm=norm)


class MicroNetwork(nn.Module):
    """Stem, cells, classifier: images [B, C, H, W] and an architecture -> logits [B, num_classes].

    Args: num_nodes: of a cell, without its inputs. operations: the candidates for the bank. leaves: number of loose
    ends of each kind of cell, which sets the width of cell outputs in the final form. input_shape: H, W, C.
    dropout_prob: before the classifier, in training. auxiliary: whether to build the auxiliary head, whose logits
    `forward` also returns in training.
    """

    def __init__(
        self,
        size: MicroSize,
        bank: Bank,
        *,
        num_nodes: int,
        operations: Sequence[str],
        leaves: dict[CellKind, int],
        input_shape: tuple[int, ...],
        num_classes: int,
        norm: Norm,
        form: Form,
        dropout_prob: float = 0.0,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        height, width, in_channels = input_shape
        channels = size.channels
        self.stem = Stem(in_channels, 3 * channels, stride=size.stem_stride, norm=norm)
        height, width = -(-height // size.stem_stride), -(-width // size.stem_stride)
        self.cells = nn.ModuleList()
        self.kinds: list[CellKind] = [size.kind(position) for position in range(size.cells)]
        self._auxiliary_position = size.reduction_cells[1] + 1
        self.auxiliary_head: AuxiliaryHead | None = None
        widths = (3 * channels, 3 * channels)  # channels of the cell's two inputs
        previous_reduces = False
        for position, kind in enumerate(self.kinds):
            if kind == "reduction":
                channels *= 2
                height, width = -(-height // 2), -(-width // 2)
            self.cells.append(
                MicroCell(
                    kind,
                    bank,
                    num_nodes=num_nodes,
                    operations=operations,
                    in_channels=widths,
                    channels=channels,
                    reduce_first_input=previous_reduces,
                    norm=norm,
                    form=form,
                )
            )
            widths = (widths[1], channels if form == "search" else channels * leaves[kind])
            previous_reduces = kind == "reduction"
            if auxiliary and position == self._auxiliary_position:
                self.auxiliary_head = AuxiliaryHead(widths[1], num_classes, height=height, width=width, norm=norm)
        self._dropout_prob = dropout_prob
        self.classifier = Classifier(widths[1], num_classes)

    def forward(
        self, images: Tensor, architecture: MicroArchitecture, *, drop_path_prob: float | Tensor = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Returns logits [B, num_classes], and the auxiliary head's, if there is one and the network is training.

        `drop_path_prob` in [0, 1) is the last cell's; earlier cells drop linearly less. A recorded graph can read it
        from a scalar tensor.
        """
        previous = current = self.stem(images)
        auxiliary_logits = None
        for position, (cell, kind) in enumerate(zip(self.cells, self.kinds, strict=True)):
            prob = drop_path_prob * (position + 1) / len(self.cells)
            previous, current = current, cell(previous, current, architecture.cell(kind), drop_path_prob=prob)
            if self.training and self.auxiliary_head is not None and position == self._auxiliary_position:
                auxiliary_logits = self.auxiliary_head(current)
        features = functional.relu(current).mean(dim=(2, 3))  # [B, C]
        features = functional.dropout(features, self._dropout_prob, self.training)
        return self.classifier(features), auxiliary_logits


class MicroCell(nn.Module):
    """One cell: the outputs of the two cells before it -> its output, at half their size if it is a reduction cell."""

    def __init__(
        self,
        kind: CellKind,
        bank: Bank,
        *,
        num_nodes: int,
        operations: Sequence[str],
        in_channels: tuple[int, int],
        channels: int,
        reduce_first_input: bool,
        norm: Norm,
        form: Form,
    ) -> None:
        super().__init__()

        def make(source: int, name: str) -> nn.Module:
            strided = kind == "reduction" and source < NUM_INPUTS
            return make_cell_operation(name, channels, stride=2 if strided else 1, norm=norm)

        # The first input lags one cell behind: after a reduction cell its map is still twice as large.
        if reduce_first_input:
            self.calibrate0: nn.Module = nn.Sequential(
                nn.ReLU(), FactorizedReduction(in_channels[0], channels, norm=norm)
            )
        else:
            self.calibrate0 = _calibrate(in_channels[0], channels, norm=norm)
        self.calibrate1 = _calibrate(in_channels[1], channels, norm=norm)
        if form == "final":
            self.calibrate1 = nn.Sequential(self.calibrate1, ReluConvNorm(channels, channels, norm=norm))
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                OperationBank(
                    bank.select((kind, str(node), str(slot)), itertools.product(range(node), operations)),
                    make,
                )
                for slot in SLOTS
            )
            for node in range(NUM_INPUTS, NUM_INPUTS + num_nodes)
        )
        leaves = bank.select((kind, "leaves"), range(NUM_INPUTS + num_nodes))
        # An input that no node reads is itself a loose end, and must be halved like all the others.
        self.leaf_reductions = nn.ModuleDict(
            {
                str(leaf): FactorizedReduction(channels, channels, norm=norm)
                for leaf in leaves
                if kind == "reduction" and leaf < NUM_INPUTS
            }
        )
        self.merge = ConcatProjection(leaves, channels, norm=norm) if form == "search" else None

    def forward(self, input0: Tensor, input1: Tensor, cell: Cell, *, drop_path_prob: float | Tensor) -> Tensor:
        tensors = [self.calibrate0(input0), self.calibrate1(input1)]
        for banks, node in zip(self.nodes, cell, strict=True):
            first, second = (
                _dropped(banks[slot](tensors[source], source, name), name, drop_path_prob)  # type: ignore[index]
                for slot, source, name in zip(SLOTS, node.inputs, node.operations, strict=True)
            )
            tensors.append(first + second)
        ends = loose_ends(cell)
        leaves = [
            self.leaf_reductions[str(end)](tensors[end]) if str(end) in self.leaf_reductions else tensors[end]
            for end in ends
        ]
        return concat(leaves) if self.merge is None else self.merge(leaves, ends)


def _calibrate(in_channels: int, channels: int, *, norm: Norm) -> nn.Module:
    return nn.Identity() if in_channels == channels else ReluConvNorm(in_channels, channels, norm=norm)


def _dropped(x: Tensor, name: str, prob: float | Tensor) -> Tensor:
    """Applies drop path, except to the identity, as in the authors' code."""
    drops = isinstance(prob, Tensor) or prob > 0.0
    return drop_path(x, prob) if drops and name != "identity" else x
