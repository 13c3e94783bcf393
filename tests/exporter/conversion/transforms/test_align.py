"""Channels that are added change no answer, and are kept only where they gain time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.conversion.transforms.align import BLOCKS, AlignmentError, align, fastest_alignment
from exporter.conversion.transforms.passes import transform
from runtime.models.model import Model
from tests.exporter.conversion.transforms.networks import SPACES, as_recorded, deployed, exported, images, random_spec
from tests.exporter.conversion.transforms.test_passes import answers

SHAPE = (9, 10, 3)


def network(space: str, seed: int, *, channels: int = 5) -> onnx.ModelProto:
    spec = random_spec(space, seed, input_shape=SHAPE, channels=channels)
    return transform(as_recorded(deployed(spec), SHAPE))


def dense_widths(model: onnx.ModelProto) -> list[int]:
    """Output channels of all dense convolutions."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    return [weights[node.input[1]][0] for node in convs if weights[node.input[1]][1] > 1]


@given(st.sampled_from(SPACES), st.integers(0, 999), st.sampled_from(BLOCKS))
@settings(max_examples=10)
def test_answers_stay_the_same_and_widths_are_whole_blocks(space: str, seed: int, block: int) -> None:
    model = network(space, seed)
    aligned = align(model, block)
    np.testing.assert_allclose(answers(aligned, images(SHAPE)), answers(model, images(SHAPE)), atol=1e-5, rtol=1e-5)
    assert all(width % block == 0 for width in dense_widths(aligned))


@pytest.mark.parametrize(("times", "block"), [((0.9, 0.7, 0.8), 8), ((0.99, 1.2, 1.4), None)])
def test_the_fastest_is_kept_if_it_gains(times: Sequence[float], block: int | None) -> None:
    model = network("stages", 1)

    def measure(files: Sequence[bytes]) -> Sequence[float]:
        assert files[0] == model.SerializeToString()
        return [1.0, *times[: len(files) - 1]]

    chosen, found, why = fastest_alignment(model, measure)
    assert found == block
    if block is None:
        assert chosen is model
        assert why.startswith("channels stay as they are: blocks of 4 0.99")
    else:
        assert all(width % block == 0 for width in dense_widths(chosen))
        assert why.startswith(f"channels are filled up to multiples of {block}")


def test_whole_blocks_are_not_measured() -> None:
    model = align(network("stages", 2), 16)

    def never(files: Sequence[bytes]) -> Sequence[float]:
        raise AssertionError(len(files))

    assert fastest_alignment(model, never) == (
        model,
        None,
        "channels stay as they are: they are multiples of 16",
    )


def test_a_graph_with_something_unknown_is_left_as_it_is() -> None:
    model = network("stages", 3)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Softmax"
    with pytest.raises(AlignmentError, match="Softmax does not take filled-up channels"):
        align(model, 8)
    chosen, block, why = fastest_alignment(model, lambda files: [1.0] * len(files))
    assert chosen is model
    assert block is None
    assert why == "channels stay as they are: Softmax does not take filled-up channels"


@pytest.mark.parametrize(("block", "expected"), [(16, {"version": 1, "block": 16}), (None, None)])
def test_the_file_says_what_its_channels_were_filled_up_to(tmp_path: Path, block: int | None, expected: object) -> None:
    (tmp_path / "model.onnx").write_bytes(exported("stages", 4, input_shape=SHAPE, block=block))
    model = Model.open(tmp_path / "model.onnx", provider="cpu")
    assert model.metadata.get("align") == expected
    assert model.check_golden().passed
