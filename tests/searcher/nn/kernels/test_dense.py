"""Which products are taken in bfloat16, and what that changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.stages import StagesSize
from searcher.nn.build import build_supernet
from searcher.nn.kernels import dense
from searcher.nn.kernels.dense import Classifier, DenseConv, pointwise_conv
from searcher.nn.kernels.depthwise import DepthwiseConv
from searcher.nn.kernels.norm import BatchNorm
from tests.searcher.conftest import STAGES_SPACE


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


def under_autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("shape", "out_channels", "allow", "dtype"),
    [
        ((4, 20, 64, 64), 20, True, torch.bfloat16),
        ((4, 20, 64, 64), 20, False, torch.float32),
        ((4, 12, 64, 64), 20, True, torch.float32),  # reads too little
        ((4, 20, 64, 64), 12, True, torch.float32),  # gives too little
        ((4, 20, 8, 8), 20, True, torch.float32),  # on too small a map
    ],
)
def test_wide_convolutions_of_large_maps_alone_are_taken_in_bfloat16(
    shape: tuple[int, ...], out_channels: int, allow: bool, dtype: torch.dtype
) -> None:
    conv, x = DenseConv(shape[1], out_channels, 1, allow_bfloat16=allow), images(*shape)
    expected = conv(x)
    assert expected.dtype == torch.float32
    with under_autocast():
        actual = conv(x)
        assert pointwise_conv(x, conv.weight).dtype == torch.float32
    assert actual.dtype == dtype
    error = (actual.float() - expected).abs().max() / expected.abs().max()
    assert error <= (1e-2 if dtype == torch.bfloat16 else 0.0)


@pytest.mark.parametrize("layer", [DepthwiseConv(20, 5), DepthwiseConv(20, 3), BatchNorm(20)], ids=repr)
def test_what_gains_nothing_stays_float32(layer: nn.Module) -> None:
    x = images(4, 20, 64, 64)
    with under_autocast():
        actual = layer(x)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, layer(x), rtol=0, atol=0)


def test_logits_are_float32() -> None:
    classifier, x = Classifier(8, 3), torch.randn(2, 8)
    with under_autocast():
        logits = classifier(x)
    assert torch.equal(logits, nn.functional.linear(x, classifier.weight))


def gradient(space: str, options: Any, size: Any, *, rounded: bool) -> Tensor:
    supernet = build_supernet(space, options, size, input_shape=(12, 12, 1), num_classes=3, seed=0)
    x = images(16, 1, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
        logits, _ = supernet(x, options.random(random.Random(0)))
    nn.functional.cross_entropy(logits, torch.arange(16) % 3).backward()
    return torch.cat([p.grad.flatten() for p in supernet.parameters() if p.grad is not None])


WITHIN = {
    "macro": (MacroSpace(6), MacroSize(8)),
    "residual stages": (replace(STAGES_SPACE, operations=("residual_3x3",)), StagesSize()),
    "fused stages": (replace(STAGES_SPACE, operations=("fused_3x3_e2",)), StagesSize()),
}
SPARED = {
    "micro": (MicroSpace(3), MicroSize(5, 8)),
    "inverted stages": (replace(STAGES_SPACE, operations=("inverted_3x3_e4",)), StagesSize()),
}


@pytest.mark.parametrize("name", [*WITHIN, *SPARED])
def test_networks_that_keep_their_gradients_allow_it_and_others_are_spared(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_WIDE", 2)  # all but the first layer's
    monkeypatch.setattr(dense, "_LARGE", 0)
    space, (options, size) = name.rpartition(" ")[2], {**WITHIN, **SPARED}[name]
    exact, rounded = (gradient(space, options, size, rounded=rounded) for rounded in (False, True))
    if name in SPARED:
        assert torch.equal(exact, rounded)
    else:
        assert not torch.equal(exact, rounded)
        assert nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99
