import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtime.models.artifact import ArtifactError, InputError
from runtime.models.model import Model
from tests.runtime.conftest import BIAS, CLASSES, SHAPE, expected_logits, metadata, save, tiny_graph


def _images(batch: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)


def _open(path: Path) -> Model:
    return Model.open(path, provider="cpu")


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_model_predicts_any_batch(model_path: Path, batch: int) -> None:
    images = _images(batch)
    prediction = _open(model_path).predict(images)
    np.testing.assert_allclose(prediction.logits, expected_logits(images), atol=1e-4)
    assert prediction.probabilities.shape == (batch, len(CLASSES))
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_model_says_what_it_is(model_path: Path) -> None:
    model = _open(model_path)
    assert model.classes == CLASSES
    assert model.image_shape == SHAPE
    assert model.sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert model.num_bytes == model_path.stat().st_size
    assert model.metadata["precision"] == "fp32"
    assert model.preprocess.resize == "squash"


def test_a_run_directory_stands_for_its_model(run_directory: Path) -> None:
    assert _open(run_directory).path == run_directory / "model.onnx"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((1, 6, 8, 1), np.float32),
            "images are float32 [1, 6, 8, 1], but the model takes uint8 [batch, 6, 8, 1]",
        ),
        (np.zeros((1, 8, 6, 1), np.uint8), "images are uint8 [1, 8, 6, 1], but the model takes uint8 [batch, 6, 8, 1]"),
        (np.zeros((6, 8, 1), np.uint8), "images are uint8 [6, 8, 1], but the model takes uint8 [batch, 6, 8, 1]"),
        (np.zeros((0, 6, 8, 1), np.uint8), "the batch holds no image"),
    ],
)
def test_other_images_are_refused(model_path: Path, images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        _open(model_path).predict(images)


# --- the inputs a model carries ---------------------------------------------------------------------------------------


def test_a_model_reproduces_the_logits_it_carries(model_path: Path) -> None:
    check = _open(model_path).check_golden()
    assert check.passed
    assert check.count == 3
    assert check.max_difference < 1e-4


def test_a_model_that_gives_other_logits_than_it_carries_fails(tmp_path: Path) -> None:
    golden = metadata()["golden"]
    golden["logits"] = np.add(golden["logits"], [0.5, 0, 0]).tolist()
    check = _open(save(tmp_path / "off.onnx", tiny_graph(), metadata(golden=golden))).check_golden()
    assert not check.passed
    assert check.max_difference == pytest.approx(0.5, abs=1e-3)


def test_a_logit_that_is_not_a_number_fails(tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.initializer[2].raw_data = np.full_like(BIAS, np.nan).tobytes()
    assert not _open(save(tmp_path / "nan.onnx", graph, metadata())).check_golden().passed


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        (None, "enas.golden: 'golden' is missing"),
        ({"images": "AAAA"}, "enas.golden: 'shape' is missing"),
        ({"images": "?", "shape": [1], "logits": [], "atol": 0, "rtol": 0}, "enas.golden: "),
        ({"images": "AAAA", "shape": [2], "logits": [], "atol": 0, "rtol": 0}, "enas.golden: cannot reshape"),
    ],
)
def test_a_model_without_readable_golden_inputs_cannot_replay_them(
    tmp_path: Path, golden: object, message: str
) -> None:
    model = _open(save(tmp_path / "m.onnx", tiny_graph(), metadata(golden=golden)))
    with pytest.raises(ArtifactError, match=re.escape(message)):
        model.check_golden()


# --- files that are not models of ours --------------------------------------------------------------------------------


def _message(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        _open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert _message(tmp_path / "x.onnx") == f"{tmp_path}/x.onnx: no such file or directory"


def test_a_run_without_a_model_says_which_command_makes_it(tmp_path: Path) -> None:
    assert _message(tmp_path) == f"{tmp_path}: no model.onnx in this directory; `enas export` writes it"


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert _message(path) == f"{path}: the file is empty"


def test_a_text_file_is_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is not a model")
    assert _message(path) == f"{path}: not an ONNX file, or one cut short (19 bytes)"


def test_a_model_cut_short_anywhere_is_refused_in_one_line(model_path: Path) -> None:
    whole = model_path.read_bytes()
    for length in range(1, len(whole), 97):
        model_path.write_bytes(whole[:length])
        assert _message(model_path).startswith(f"{model_path}: ")


def test_a_foreign_model_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "foreign.onnx", tiny_graph(), {})
    assert _message(path) == f"{path}: an ONNX model, but not one of `enas export`: it has no enas.* metadata"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ir_version": 99},
            "onnxruntime cannot load it: Unsupported model IR version: 99, max supported IR version: ",
        ),
        ({"opset": 99}, "onnxruntime cannot load it: ONNX Runtime only *guarantees* support for models stamped with "),
        ({"op": "Nope"}, "onnxruntime cannot load it: This is an invalid model. "),
    ],
    ids=str,
)
def test_what_onnxruntime_says_begins_with_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata())
    model = onnx.load(path)
    model.ir_version = changes.get("ir_version", model.ir_version)
    model.opset_import[0].version = changes.get("opset", model.opset_import[0].version)
    model.graph.node[0].op_type = changes.get("op", model.graph.node[0].op_type)
    onnx.save(model, path)
    assert _message(path).startswith(f"{path}: {message}")


def test_all_that_is_wrong_with_a_model_is_told_at_once(tmp_path: Path) -> None:
    graph = tiny_graph(input_name="pixel_values", outputs=("scores", "probabilities"))
    path = save(
        tmp_path / "m.onnx", graph, metadata(classes=None), broken={"accuracy": "91 %", "preprocess": '{"size": 3}'}
    )
    message = _message(path)
    for part in (
        "not a whole model of `enas export`: enas.accuracy is not JSON",
        "its inputs are pixel_values, expected images",
        "it has no output logits",
        "enas.classes is not a list of names",
        "enas.preprocess: it has no resize, height, width, channels",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ({"version": 2}, "enas.pixels: version 2 is of a newer enas-toolchain; this one knows 1"),
        ({"order": "BGR"}, "enas.pixels: it has no version"),
    ],
)
def test_a_model_for_pictures_prepared_otherwise_is_refused(
    tmp_path: Path, pixels: dict[str, Any], message: str
) -> None:
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata(pixels=pixels))
    assert _message(path) == f"{path}: not a whole model of `enas export`: {message}"


def test_what_a_model_says_of_pixels_beyond_what_is_known_is_passed_over(tmp_path: Path) -> None:
    _open(save(tmp_path / "m.onnx", tiny_graph(), metadata(pixels={"version": 1, "gamut": "sRGB"})))


def test_metadata_that_contradict_the_graph_are_told(tmp_path: Path) -> None:
    entries = metadata((6, 8, 3), classes=["dark", "bright"])
    path = save(tmp_path / "m.onnx", tiny_graph(), entries)
    assert _message(path) == (
        f"{path}: not a whole model of `enas export`: enas.preprocess makes images of [6, 8, 3], but the graph takes "
        "[6, 8, 1]; enas.classes names 2 classes, but logits are ['batch', 3]"
    )
