"""No pass changes what a network computes, whatever network of whatever space and size of picture it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.conversion.convert import DeployedNetwork, check
from exporter.conversion.transforms.passes import transform
from runtime.models.tolerance import Tolerance
from searcher.nn.blocks import FactorizedReduction
from searcher.nn.kernels.norm import batch_norm
from tests.exporter.conversion.transforms.networks import SPACES, as_recorded, deployed, images, random_spec


def answers(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    """Logits [N, K]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(check(model), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": pictures})[0]


def operations(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@given(st.sampled_from(SPACES), st.integers(0, 999), st.integers(5, 15), st.integers(5, 15), st.sampled_from([1, 3]))
@settings(max_examples=12)
def test_answers_stay_the_same(space: str, seed: int, height: int, width: int, channels: int) -> None:
    shape = (height, width, channels)
    before = as_recorded(deployed(random_spec(space, seed, input_shape=shape)), shape)
    after = transform(before)
    # As every export is judged: a small logit beside large ones is no more exact than they are.
    excess = Tolerance(atol=1e-5, rtol=1e-5).excess(answers(after, images(shape)), answers(before, images(shape)))
    assert (excess <= 1).all()
    assert not {"ReduceMean", "Slice", "Pad"} & operations(after).keys()


class _Alone(torch.nn.Module):
    """A factorised reduction between two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.entry = torch.nn.Conv2d(1, in_channels, 1)
        self.reduction = FactorizedReduction(in_channels, out_channels, norm=batch_norm(running_statistics=True))
        torch.nn.init.normal_(self.reduction.norm.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.reduction(torch.relu(self.entry(x))).mean(dim=(2, 3)), None


def alone(in_channels: int, out_channels: int, shape: tuple[int, int, int]) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = DeployedNetwork(_Alone(in_channels, out_channels), mean=[0.5], std=[0.25])
    return as_recorded(network, shape)


@pytest.mark.parametrize("height", [1, 2, 5, 6])
@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("out_channels", [4, 5])
def test_a_reduction_of_any_size_is_one_convolution(height: int, width: int, out_channels: int) -> None:
    shape = (height, width, 1)
    before = alone(6, out_channels, shape)
    after = transform(before)
    assert (operations(before)["BatchNormalization"], operations(after)["BatchNormalization"]) == (1, 0)
    assert operations(after)["Conv"] == 2
    np.testing.assert_allclose(answers(after, images(shape)), answers(before, images(shape)), atol=1e-5, rtol=1e-5)


def test_a_wide_reduction_stays_since_four_times_the_products_cost_more_than_they_save() -> None:
    assert operations(transform(alone(64, 64, (6, 6, 1))))["Concat"] == 1
    assert operations(transform(alone(48, 48, (6, 6, 1))))["Concat"] == 0


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 1)])
def test_a_wide_reduction_that_pads_a_pointwise_convolution_is_merged(size: tuple[int, int, int]) -> None:
    """OpenCV computes those wrongly; where a map has one row, the reduction pads before its convolution."""
    assert operations(transform(alone(64, 64, size)))["Pad"] == 0


def test_a_reduction_whose_middle_somebody_else_reads_stays() -> None:
    model = alone(6, 4, (6, 6, 1))
    joined = next(node for node in model.graph.node if node.op_type == "Concat")
    model.graph.output.append(onnx.helper.make_tensor_value_info(joined.output[0], onnx.TensorProto.FLOAT, None))
    assert operations(transform(model))["Concat"] == 1


def test_a_mean_over_other_axes_stays() -> None:
    for axes in ([1], [2], [1, 2], [1, 2, 3]):
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)],
            "mean",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2, 3, 4])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(np.array(axes, dtype=np.int64), "axes")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
        assert operations(transform(model)) == {"ReduceMean": 1}


def test_shapes_are_kept_of_values_alone() -> None:
    """Quantisers of onnxruntime stumble over initializers whose shapes are told twice."""
    model = transform(as_recorded(deployed(random_spec("macro", 1, input_shape=(9, 9, 1))), (9, 9, 1)))
    assert model.graph.value_info
    assert not {value.name for value in model.graph.value_info} & {tensor.name for tensor in model.graph.initializer}
