"""The macro network: one wiring for the supernet and for every fixed network.

The size sets how skips are joined and how wide the layers are. The argument `form` only sets where the weights of a
joining 1×1 convolution are stored:
  search  in blocks, one for each tensor that may be joined, shared by all architectures;
  final   in one convolution.

Source: Pham et al. 2018, section 2.3, and the authors' code where the paper is silent.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from foundation.document import ConfigError
from searcher.arch.operations import LAYER_COSTS
from searcher.arch.spaces.macro import (
    Layer,
    MacroArchitecture,
    MacroSize,
    MacroSpace,
    SkipMerge,
    reduction_layers,
    skip_candidates,
)
from searcher.nn.banks import Alternatives, Bank, FixedOps, Form, SharedOps
from searcher.nn.blocks import ConcatProjection, FactorizedReduction, ReluConvNorm, Stem
from searcher.nn.kernels.concat import concat
from searcher.nn.kernels.dense import Classifier
from searcher.nn.kernels.norm import Norm
from searcher.nn.operations import make_layer_operation


def build_shared(space: MacroSpace, size: MacroSize, **options: Any) -> MacroNetwork:
    """The supernet: all candidates, in the search form. options: see `MacroNetwork`."""
    return MacroNetwork(
        size, SharedOps(), num_layers=space.num_layers, operations=space.operations, form="search", **options
    )


def build_fixed(architecture: MacroArchitecture, size: MacroSize, *, form: Form, **options: Any) -> MacroNetwork:
    """The network of one architecture. options: see `MacroNetwork`."""
    bank = FixedOps(architecture.used())
    return MacroNetwork(
        size, bank, num_layers=len(architecture.layers), operations=tuple(LAYER_COSTS), form=form, **options
    )


def make_operation(name: str, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> nn.Module:
    """Returns a single operation; it keeps the number of channels and has no stride."""
    return make_layer_operation(name, in_channels, norm=norm)


class MacroNetwork(nn.Module):
    """Stem, layers, classifier: images [B, C, H, W] and an architecture -> logits [B, num_classes].

    Args: operations: the candidates for the bank. input_shape: H, W, C. dropout_prob: before the classifier, in
    training.
    Raises: ConfigError: an auxiliary head is asked for.
    """

    def __init__(
        self,
        size: MacroSize,
        bank: Bank,
        *,
        num_layers: int,
        operations: Sequence[str],
        input_shape: tuple[int, ...],
        num_classes: int,
        norm: Norm,
        form: Form,
        dropout_prob: float = 0.0,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        if auxiliary:
            raise ConfigError("a macro network has no auxiliary head; auxiliary_weight must be 0")
        channels = size.channels
        self.stem = Stem(input_shape[-1], channels, stride=size.stem_stride, norm=norm)
        self.layers = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        for index in range(1, num_layers + 1):
            self.layers.append(
                MacroLayer(
                    index,
                    bank,
                    operations=operations,
                    channels=channels,
                    merge=size.skip_merge,
                    norm=norm,
                    form=form,
                )
            )
            if index in reduction_layers(num_layers):
                out_channels = 2 * channels if size.double_channels else channels
                tensors = bank.select(("reduction", str(index)), range(index + 1))
                self.reductions[str(index)] = nn.ModuleDict(
                    {str(tensor): FactorizedReduction(channels, out_channels, norm=norm) for tensor in tensors}
                )
                channels = out_channels
        self._dropout_prob = dropout_prob
        self.classifier = Classifier(channels, num_classes)

    def forward(
        self, images: Tensor, architecture: MacroArchitecture, *, drop_path_prob: float = 0.0
    ) -> tuple[Tensor, None]:
        """Logits [B, num_classes]; there is no auxiliary head.

        Raises: ConfigError: `drop_path_prob` is not 0. A layer has a single path, through its operation.
        """
        if drop_path_prob > 0:
            raise ConfigError("a macro network has no paths to drop; drop_path_prob must be 0")
        x = self.stem(images)
        tensors = {0: x}
        for index, (module, layer) in enumerate(zip(self.layers, architecture.layers, strict=True), start=1):
            x = tensors[index] = module(x, [tensors[skip] for skip in layer.skips], layer)
            if str(index) in self.reductions:
                reductions: Any = self.reductions[str(index)]
                # Tensors that no later layer reads are neither halved nor kept.
                tensors = {
                    tensor: reductions[str(tensor)](tensors[tensor]) for tensor in architecture.read_after(index)
                }
                x = tensors[index]
        features = functional.dropout(x.mean(dim=(2, 3)), self._dropout_prob, self.training)  # [B, C]
        return self.classifier(features), None


class MacroLayer(nn.Module):
    """Layer `index`: the tensor before it and its skips, all [B, C, H, W] -> its output."""

    def __init__(
        self,
        index: int,
        bank: Bank,
        *,
        operations: Sequence[str],
        channels: int,
        merge: SkipMerge,
        norm: Norm,
        form: Form,
    ) -> None:
        super().__init__()
        self._index = index
        names = bank.select(("operation", str(index)), operations)
        self.operations = Alternatives({name: make_layer_operation(name, channels, norm=norm) for name in names})
        candidates = skip_candidates(index)
        joined = bank.select(("merge", str(index)), [*candidates, index])
        self.merge: nn.Module | None = None  # for a layer without skip candidates
        if candidates and merge in ("sum", "residual"):
            self.merge = _Sum(norm(channels) if merge == "sum" else nn.Identity())
        elif candidates and form == "search":
            self.merge = ConcatProjection(joined, channels, norm=norm)
        elif candidates:
            self.merge = _Concat(len(joined), channels, norm=norm)

    def forward(self, x: Tensor, skips: Sequence[Tensor], layer: Layer) -> Tensor:
        x = self.operations[layer.operation](x)
        return x if self.merge is None else self.merge([*skips, x], [*layer.skips, self._index])


class _Sum(nn.Module):
    """Sum, norm: n × [B, C, H, W] -> [B, C, H, W]. Source: the authors' code, `_enas_layer`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tensors: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
        return self.norm(sum(tensors[1:], start=tensors[0]))


class _Concat(nn.Module):
    """Concatenation, ReLU, 1×1 convolution, norm: n × [B, C, H, W] -> [B, C, H, W].

    Source: the authors' code, `_fixed_layer`.
    """

    def __init__(self, num_tensors: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.projection = ReluConvNorm(num_tensors * channels, channels, norm=norm)

    def forward(self, tensors: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
        return self.projection(concat(tensors))
