"""Operations and blocks against what they are said to compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from searcher.arch.operations import CELL_COSTS, LAYER_COSTS
from searcher.nn.blocks import ConcatProjection, FactorizedReduction, ReluConvNorm, Stem, drop_path
from searcher.nn.kernels.norm import batch_norm
from searcher.nn.operations import (
    CELL_OPERATIONS,
    LAYER_OPERATIONS,
    SepConv,
    make_cell_operation,
    make_layer_operation,
)

NORM = batch_norm(running_statistics=False)


def test_every_operation_of_the_spaces_has_a_class_and_none_is_left_over() -> None:
    assert set(CELL_OPERATIONS) == set(CELL_COSTS)
    assert set(LAYER_OPERATIONS) == set(LAYER_COSTS)


@pytest.mark.parametrize("name", CELL_COSTS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_operations_keep_channels_and_divide_sides_rounding_up(name: str, stride: int, side: int) -> None:
    operation = make_cell_operation(name, 6, stride=stride, norm=NORM)
    x = torch.randn(3, 6, side, side, requires_grad=True)
    y = operation(x)
    assert y.shape == (3, 6, -(-side // stride), -(-side // stride))
    y.square().sum().backward()
    assert all(p.grad is not None for p in operation.parameters())


def test_average_pooling_does_not_count_padding() -> None:
    pool = make_cell_operation("avg_pool_3x3", 1, stride=1, norm=NORM)
    assert torch.equal(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_max_pooling_takes_the_largest_neighbour() -> None:
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 0] = 5.0
    expected = torch.tensor([[5.0, 5.0, 0.0], [5.0, 5.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(make_cell_operation("max_pool_3x3", 1, stride=1, norm=NORM)(x)[0, 0], expected)


def test_sep_conv_strides_only_its_first_half() -> None:
    operation = SepConv(4, stride=2, norm=NORM, kernel_size=5)
    assert (operation.depthwise1.stride, operation.depthwise2.stride) == ((2, 2), (1, 1))
    x = torch.randn(2, 4, 8, 8)
    half = operation.pointwise1(functional.conv2d(x.relu(), operation.depthwise1.weight, None, 2, 2, 1, 4))
    half = functional.batch_norm(half, None, None, training=True)
    whole = operation.pointwise2(functional.conv2d(half.relu(), operation.depthwise2.weight, None, 1, 2, 1, 4))
    torch.testing.assert_close(operation(x), functional.batch_norm(whole, None, None, training=True))


@pytest.mark.parametrize("name", LAYER_COSTS)
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_operations_of_macro_layers_keep_channels_and_sides(name: str, side: int) -> None:
    operation = make_layer_operation(name, 6, norm=NORM)
    x = torch.randn(3, 6, side, side)
    y = operation(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert all(p.grad is not None for p in operation.parameters())


@pytest.mark.parametrize("size", [3, 5])
def test_a_macro_layers_convolution_projects_first_and_is_one_convolution_deep(size: int) -> None:
    x = torch.randn(2, 4, 8, 8)

    def norm(y: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(y, None, None, training=True)

    full = make_layer_operation(f"conv_{size}x{size}", 4, norm=NORM)
    projected = norm(functional.conv2d(x, full.projection.weight)).relu()
    expected = norm(functional.conv2d(projected, full.conv.weight, padding=size // 2)).relu()
    torch.testing.assert_close(full(x), expected)

    separable = make_layer_operation(f"sep_conv_{size}x{size}", 4, norm=NORM)
    projected = norm(functional.conv2d(x, separable.projection.weight)).relu()
    deep = functional.conv2d(projected, separable.depthwise.weight, padding=size // 2, groups=4)
    expected = norm(functional.conv2d(deep, separable.pointwise.weight)).relu()
    torch.testing.assert_close(separable(x), expected)


def test_a_macro_layers_pooling_projects_first_and_has_no_norm_after_it() -> None:
    x = torch.randn(2, 4, 8, 8)
    pool = make_layer_operation("max_pool_3x3", 4, norm=NORM)
    projected = functional.batch_norm(functional.conv2d(x, pool.projection.weight), None, None, training=True).relu()
    torch.testing.assert_close(pool(x), functional.max_pool2d(projected, 3, stride=1, padding=1))


def test_a_projection_of_some_sources_is_a_convolution_of_their_blocks() -> None:
    block = ConcatProjection(range(4), 3, norm=torch.nn.Identity)
    tensors = [torch.randn(2, 3, 5, 5) for _ in range(2)]
    expected = sum(
        functional.conv2d(x.relu(), block.blocks[source].weight) for x, source in zip(tensors, "13", strict=True)
    )
    torch.testing.assert_close(block(tensors, [1, 3]), expected)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (1, 1)])
def test_factorised_reduction_reads_even_and_odd_pixels(height: int, width: int) -> None:
    block = FactorizedReduction(2, 5, norm=torch.nn.Identity)
    x = torch.randn(1, 2, height, width)
    expected = torch.zeros(1, 5, -(-height // 2), -(-width // 2))
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            expected[0, :2, i, j] = block.even.weight[:, :, 0, 0] @ x[0, :, 2 * i, 2 * j]
            if 2 * i + 1 < height and 2 * j + 1 < width:
                expected[0, 2:, i, j] = block.odd.weight[:, :, 0, 0] @ x[0, :, 2 * i + 1, 2 * j + 1]
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("stride", "expected"), [(1, 33), (2, 17), (4, 9), (8, 5)])
def test_the_stem_shrinks_a_picture_by_its_stride(stride: int, expected: int) -> None:
    assert Stem(3, 12, stride=stride, norm=NORM)(torch.randn(2, 3, 33, 33)).shape == (2, 12, expected, expected)


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    y = drop_path(torch.ones(20000, 2, 1, 1), 0.4)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1.0).div(0.6).item()}
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)


def test_a_supernets_norms_use_the_batch_even_in_evaluation() -> None:
    block = ReluConvNorm(3, 4, norm=NORM).eval()
    y = block(torch.randn(8, 3, 5, 5) * 7 + 2)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert not list(block.buffers())
