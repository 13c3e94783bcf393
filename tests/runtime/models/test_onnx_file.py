"""What a model file's own bytes tell: where its weights are, and which inputs leave their rank open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.models.artifact import ArtifactError
from runtime.models.model import Model
from runtime.models.onnx_file import OnnxFile, PartError
from tests.runtime.conftest import SHAPE, expected_logits, metadata, save, tiny_graph

IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)


@pytest.fixture
def outside_path(tmp_path: Path) -> Path:
    """The tiny model with its weights in a file beside it, as MLflow and torch leave them."""
    whole = onnx.load(save(tmp_path / "whole.onnx", tiny_graph(), metadata()))
    folder = tmp_path / "logged"
    folder.mkdir()
    onnx.save_model(whole, folder / "model.onnx", save_as_external_data=True, size_threshold=0, location="model.data")
    return folder / "model.onnx"


def test_a_model_with_its_weights_beside_it_answers(outside_path: Path) -> None:
    model = Model.open(outside_path, provider="cpu")
    np.testing.assert_allclose(model.predict(IMAGES).logits, expected_logits(IMAGES), atol=1e-4)
    assert model.check_golden().passed
    assert model.num_bytes == sum(path.stat().st_size for path in outside_path.parent.iterdir())


def test_weights_of_the_same_name_in_the_working_directory_are_not_taken(
    outside_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.data").write_bytes(os.urandom((outside_path.parent / "model.data").stat().st_size))
    monkeypatch.chdir(elsewhere)
    logits = Model.open(outside_path, provider="cpu").predict(IMAGES).logits
    np.testing.assert_allclose(logits, expected_logits(IMAGES), atol=1e-4)


def test_the_hash_covers_the_weights_beside_it(outside_path: Path) -> None:
    before = OnnxFile(outside_path, outside_path.read_bytes()).sha256
    data = bytearray((outside_path.parent / "model.data").read_bytes())
    data[5] ^= 1
    (outside_path.parent / "model.data").write_bytes(data)
    assert OnnxFile(outside_path, outside_path.read_bytes()).sha256 != before


def test_weights_that_are_missing_are_named(outside_path: Path) -> None:
    (outside_path.parent / "model.data").unlink()
    with pytest.raises(ArtifactError) as caught:
        Model.open(outside_path, provider="cpu")
    assert (
        str(caught.value)
        == f"{outside_path}: its weights are in model.data, which is missing beside it; copy both files"
    )


@pytest.mark.parametrize("place", ["../model.data", "/etc/hostname"])
def test_weights_outside_of_the_models_folder_are_not_read(outside_path: Path, place: str) -> None:
    model = onnx.load(outside_path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = place
    outside_path.write_bytes(model.SerializeToString())
    shutil.move(outside_path.parent / "model.data", outside_path.parent.parent)
    with pytest.raises(ArtifactError, match="outside of the model's folder, are not read"):
        Model.open(outside_path, provider="cpu")


def test_weights_are_found_in_the_branches_of_a_graph_too() -> None:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="here/w.bin")
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "branch", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "outer", [], []))
    with pytest.raises(PartError, match=r"its weights are in here/w\.bin"):
        _ = OnnxFile(Path("/nowhere/m.onnx"), model.SerializeToString()).parts


def test_a_place_of_weights_without_a_name_is_damage(outside_path: Path) -> None:
    model = onnx.load(outside_path, load_external_data=False)
    model.graph.initializer[0].external_data[0].ClearField("value")
    outside_path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="onnxruntime cannot load it"):
        Model.open(outside_path, provider="cpu")


def test_inputs_of_open_rank_are_told_from_scalars() -> None:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {"open": None, "scalar": [], "vector": ["n"]}.items()
    ]
    model = helper.make_model(helper.make_graph([], "g", inputs, []))
    assert OnnxFile(Path("m.onnx"), model.SerializeToString()).unranked_inputs == {"open"}


def test_bytes_that_are_no_model_tell_nothing() -> None:
    whole = helper.make_model(tiny_graph()).SerializeToString()
    for data in (b"", b"text", whole[:100], whole[:-7]):
        file = OnnxFile(Path("m.onnx"), data)
        assert (file.parts, file.source) == ((), data)
        assert isinstance(file.unranked_inputs, frozenset)
