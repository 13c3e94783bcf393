"""Exported networks of convolutional spaces give the answers they gave in torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from exporter.conversion.convert import DeployedNetwork, check, convert, least_onnxruntime, num_golden, sign
from foundation import machine
from searcher.arch.operations import LAYER_COSTS
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize
from searcher.nn.build import build_network
from tests.searcher.conftest import make_spec


def is_padded_pointwise(node: onnx.NodeProto) -> bool:
    """Whether a node is a 1×1 convolution that pads its input."""
    shapes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    return node.op_type == "Conv" and shapes["kernel_shape"] == [1, 1] and any(shapes["pads"])


@pytest.mark.parametrize("size", [MacroSize(channels=8, double_channels=True), MacroSize(channels=8, skip_merge="sum")])
def test_a_macro_network_of_every_operation_answers_the_same_at_any_batch_size(size: MacroSize, tmp_path: Path) -> None:
    skips = ((), (), (0,), (0, 2), (), (1, 3, 4))
    layers = tuple(Layer(operation, skip) for operation, skip in zip(LAYER_COSTS, skips, strict=True))
    height, width, channels = 17, 23, 3  # odd, so that every halving rounds up
    bound = build_network(make_spec(MacroArchitecture(layers), size, input_shape=(height, width, channels)))
    bound(torch.randn(16, channels, height, width))  # gives the norms statistics of their own
    network = DeployedNetwork(bound, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)).eval()
    model = convert(network, input_shape=(height, width, channels))
    assert not [node.name for node in model.graph.node if is_padded_pointwise(node)]  # OpenCV computes them wrongly
    session = onnxruntime.InferenceSession(check(model))
    for batch_size in (1, 2, 7):
        images = torch.randint(256, (batch_size, height, width, channels), dtype=torch.uint8)
        with torch.no_grad():
            expected, _ = network(images)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5, rtol=1e-5)
    assert not {"ReduceMean", "Pad"} & {node.op_type for node in model.graph.node}
    # It stumbles over shapes of initializers in `value_info`.
    quantize_dynamic(onnx.load_from_string(check(model)), tmp_path / "quantised.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "quantised.onnx").run(["logits"], {"images": images.numpy()})


def test_a_model_made_in_a_checkout_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", nowhere)
    model = onnx.ModelProto()
    sign(model)
    assert (model.producer_name, model.producer_version) == ("enas-toolchain", "unknown")


def test_large_images_are_carried_in_smaller_numbers() -> None:
    assert [num_golden(shape) for shape in ((28, 28, 1), (32, 32, 3), (128, 128, 3), (224, 224, 3))] == [4, 4, 1, 1]


def test_the_least_onnxruntime_of_every_opset_that_can_be_asked_for() -> None:
    assert [least_onnxruntime(opset) for opset in range(18, 24)] == ["1.20", "1.20", "1.20", "1.20", "1.21", "1.23"]
