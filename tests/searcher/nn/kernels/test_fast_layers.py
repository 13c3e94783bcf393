"""Batch norm, depthwise convolution and pooling as we compute them on a CPU, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from searcher.nn.kernels import depthwise, norm, pooling
from searcher.nn.kernels.concat import concat
from searcher.nn.kernels.depthwise import DepthwiseConv
from searcher.nn.kernels.norm import BatchNorm
from searcher.nn.kernels.pooling import AvgPool3x3, MaxPool3x3

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _small_tensors_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "_LARGE", 0)
    monkeypatch.setattr(depthwise, "_NARROW", 0)
    monkeypatch.setattr(pooling, "_LARGE", 0)
    monkeypatch.setattr(pooling, "_CACHED", 300)  # so that there are several parts, and a last one that is not full


def images(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def outcome(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], grad)]


def takes_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pixels were in a row at every call of the fast batch norm."""
    calls: list[int] = []
    found = norm._pixels_a_row

    def spy(x: Tensor) -> int:
        calls.append(found(x))
        return calls[-1]

    monkeypatch.setattr(norm, "_pixels_a_row", spy)
    return calls


@pytest.mark.parametrize("channels", [1, 8, 20, 36, 40, 48])
def test_batch_norm_gives_what_torch_gives_at_every_width(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = takes_rows(monkeypatch)
    ours, plain = BatchNorm(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
        plain.bias.uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(2))
    ours.load_state_dict(plain.state_dict())
    x, grad = 3 * images(4, channels, 8, 8) + 5, images(4, channels, 8, 8, seed=3)
    for got, expected in zip(outcome(ours, x, grad), outcome(plain, x, grad), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, **CLOSE)
    assert (calls[0] > 1) == (channels != 48)


def test_batch_norm_does_not_lose_small_differences_on_a_large_mean() -> None:
    x = images(4, 20, 8, 8) * 0.1 + 100.0
    got, expected = BatchNorm(20)(x), functional.batch_norm(x.double(), None, None, training=True)
    torch.testing.assert_close(got, expected.float(), rtol=0, atol=2e-3)


def test_batch_norm_in_evaluation_follows_what_it_was_made_for() -> None:
    x = images(4, 20, 8, 8)
    shared = BatchNorm(20, track_running_stats=False).eval()
    torch.testing.assert_close(shared(x), functional.batch_norm(x, None, None, training=True), **CLOSE)
    fixed = BatchNorm(20).eval()
    torch.testing.assert_close(fixed(x), x / (1 + 1e-5) ** 0.5, **CLOSE)


@pytest.mark.parametrize("shape", [(3, 20, 5, 5), (4, 20, 1, 1)])
def test_batch_norm_takes_pixels_that_do_not_fill_rows(shape: tuple[int, ...]) -> None:
    x = images(*shape)
    torch.testing.assert_close(BatchNorm(20)(x), functional.batch_norm(x, None, None, training=True), **CLOSE)


def test_a_relu_may_overwrite_what_batch_norm_gave() -> None:
    x = images(4, 20, 8, 8).requires_grad_()
    functional.relu(BatchNorm(20)(x), inplace=True).square().sum().backward()
    plain = x.detach().clone().requires_grad_()
    functional.relu(functional.batch_norm(plain, None, None, training=True)).square().sum().backward()
    assert x.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(x.grad, plain.grad, **CLOSE)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 9, 16])
def test_depthwise_convolution_gives_what_torch_gives(kernel_size: int, stride: int, side: int) -> None:
    ours = DepthwiseConv(6, kernel_size, stride=stride)
    plain = nn.Conv2d(6, 6, kernel_size, stride=stride, padding=kernel_size // 2, groups=6, bias=False)
    plain.load_state_dict(ours.state_dict())
    x = images(3, 6, side, side)
    grad = images(*plain(x).shape, seed=1)
    for got, expected in zip(outcome(ours, x, grad), outcome(plain, x, grad), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)


def test_the_weights_of_wide_kernels_alone_are_taken_in_parts() -> None:
    x = images(2, 6, 16, 16).requires_grad_()
    wide, narrow = DepthwiseConv(6, 5), DepthwiseConv(6, 3)
    assert "WideDepthwiseConv" in type(wide(x).grad_fn).__name__
    assert "WideDepthwiseConv" not in type(narrow(x).grad_fn).__name__
    assert "WideDepthwiseConv" not in type(wide.eval()(x).grad_fn).__name__


@pytest.mark.parametrize(("side", "in_parts"), [(8, True), (5, True), (4, False)])
def test_on_narrow_maps_those_of_many_channels_are(side: int, in_parts: bool) -> None:
    layer, x = DepthwiseConv(64, 5), images(2, 64, side, side)
    assert ("WideDepthwiseConv" in type(layer(x).grad_fn).__name__) == in_parts


@pytest.mark.parametrize("shape", [(5, 8, 6, 6), (5, 20, 2, 7), (3, 8, 1, 6), (5, 16, 6, 6)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_gives_what_torch_gives(shape: tuple[int, ...], stride: int) -> None:
    x = images(*shape)
    average = nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
    grad = images(*average(x).shape, seed=1)
    for expected, actual in zip(outcome(average, x, grad), outcome(AvgPool3x3(stride=stride), x, grad), strict=True):
        torch.testing.assert_close(actual, expected, **CLOSE)
    maximum = nn.MaxPool2d(3, stride=stride, padding=1)
    with torch.no_grad():
        assert torch.equal(MaxPool3x3(stride=stride)(x), maximum(x))
    for expected, actual in zip(outcome(maximum, x, grad), outcome(MaxPool3x3(stride=stride), x, grad), strict=True):
        assert torch.equal(actual, expected)


def test_pooling_of_empty_lanes_alone_goes_by_rows() -> None:
    assert pooling._leaves_lanes_empty(images(2, 8, 4, 4))
    assert not pooling._leaves_lanes_empty(images(2, 16, 4, 4))
    assert not pooling._leaves_lanes_empty(images(2, 8, 4, 4).contiguous())
    assert not pooling._leaves_lanes_empty(images(2, 8, 4, 4).bfloat16())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_concatenation_is_torchs_and_its_gradients_come_whole(layout: torch.memory_format) -> None:
    maps = [images(3, channels, 5, 4, seed=channels).contiguous(memory_format=layout) for channels in (4, 1, 6)]
    grad = images(3, 11, 5, 4).contiguous(memory_format=layout)
    ours, plain = ([x.clone().requires_grad_() for x in maps] for _ in range(2))
    joined, expected = concat(ours), torch.cat(plain, dim=1)
    assert torch.equal(joined, expected)
    for got, wanted in zip(
        torch.autograd.grad(joined, ours, grad), torch.autograd.grad(expected, plain, grad), strict=True
    ):
        assert torch.equal(got, wanted)
        assert got.is_contiguous(memory_format=layout)
