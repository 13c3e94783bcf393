"""Networks timed before they are trained: the file that is timed is the one that ships, node for node."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from exporter.conversion.convert import DeployedNetwork, check, convert
from exporter.judging.references import REFERENCE_SPECS, references
from exporter.latency.measure import Effort, Sized, measure, onnx_of
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification
from searcher.nn.build import build_network
from searcher.presets.catalog import search_preset

SHAPE = (27, 27, 1)  # odd, which FactorizedReduction fills up
TASK = ImageClassification(dataset="none", input_shape=SHAPE, classes=("a", "b", "c"))
SPACES = ("micro", "macro", "stages")


def random_spec(space: str, *, seed: int = 0) -> Spec:
    config = search_preset(space, "quick", image_size=27)
    return Spec(space, config.search_space.random(random.Random(seed)), config.final_network, TASK)


def reference(name: str) -> Sized:
    return Sized(dict(references(TASK))[name], SHAPE)


def untrained() -> Iterator[tuple[str, Spec | Sized]]:
    yield from ((space, random_spec(space)) for space in SPACES)
    yield from ((name, reference(name)) for name in (*REFERENCE_SPECS, "shufflenet-v2"))


def answers(model: bytes, images: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(
        None, {"images": images}
    )


@pytest.mark.parametrize(("name", "network"), list(untrained()))
def test_the_file_computes_what_the_network_does_at_any_batch_size(name: str, network: Spec | Sized) -> None:
    sized = network if isinstance(network, Sized) else Sized(build_network(network), SHAPE)
    model = onnx_of(sized)
    onnx.checker.check_model(model, full_check=True)
    deployed = DeployedNetwork(sized.network, mean=[0.5], std=[0.25]).eval()
    for batch_size in (1, 3):
        images = np.random.default_rng(batch_size).integers(0, 256, (batch_size, *SHAPE), dtype=np.uint8)
        with torch.no_grad():
            expected = deployed(torch.from_numpy(images))
        for ours, theirs in zip(answers(model, images), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)


def test_values_keep_their_size_from_layer_to_layer() -> None:
    # Denormal numbers, in which a deep untrained network would end, take many times as long.
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    logits, _ = answers(onnx_of(reference("mobilenet-v2-small")), images)
    assert np.abs(logits).max() > 1e-3


def test_an_operation_that_is_not_known_is_named() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return x.mean(dim=(2, 3)).cos(), None

    with pytest.raises(NotImplementedError, match=r"aten\.cos is not an operation"):
        onnx_of(Sized(Odd(), SHAPE))


def test_more_work_takes_longer_and_each_has_its_interval() -> None:
    small, large = (random_spec("micro") for _ in range(2))
    networks = [small, *(Sized(build_network(large), SHAPE) for _ in range(1)), reference("mobilenet-v2-small")]
    found = measure(networks, batch=2, threads=1, effort=Effort(seconds=0.12, sittings=6))
    assert len(found.ms) == len(found.ratios) == 3
    assert found.ms[2].value > 2 * found.ms[0].value
    assert found.ratios[2].value > 2
    # The same network twice.
    assert 0.7 < found.ratios[1].value < 1.4
    assert all(one.interval is not None and one.interval.low <= one.value <= one.interval.high for one in found.ratios)
    assert (found.batch, found.threads) == (2, 1)


# What makes no difference to the computation here.
_NO_MATTER = ("momentum", "transB", "num_outputs", "allowzero")


def optimised(model: bytes, path: Path) -> Counter[str]:
    """The operations that onnxruntime makes of a model, with their attributes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(
        f"{node.op_type} {sorted(str(one) for one in node.attribute if one.name not in _NO_MATTER)}"
        for node in onnx.load(path).graph.node
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network"), list(untrained()))
def test_onnxruntime_makes_the_same_graph_of_it_as_of_the_exported_file(
    name: str, network: Spec | Sized, tmp_path: Path
) -> None:
    sized = network if isinstance(network, Sized) else Sized(build_network(network), SHAPE)
    ours = onnx_of(sized)
    deployed = DeployedNetwork(sized.network, mean=[0.5], std=[0.25])
    theirs = check(convert(deployed, input_shape=SHAPE))
    assert optimised(ours, tmp_path / "ours.onnx") == optimised(theirs, tmp_path / "theirs.onnx")
