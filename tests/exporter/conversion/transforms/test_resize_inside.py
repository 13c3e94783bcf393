"""The form that takes pictures of any size answers as the model does to pictures that were prepared for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exporter.conversion.convert import check
from exporter.conversion.transforms.resize_inside import resize_inside
from foundation.pictures import Resize
from runtime.models.images import Preprocess, prepare_file
from runtime.models.model import Model
from tests.runtime.conftest import metadata, save, tiny_graph
from tests.test_preprocessing_recipes import noisy

SIZES = [(224, 224), (31, 17), (9, 40), (6, 8), (5, 4), (1, 3)]


def resized(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    """The pixels that a model makes of pictures before it looks at them."""
    model.graph.output.append(onnx.helper.make_tensor_value_info("resize.resized", onnx.TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["resize.resized"], {"images": pictures})[0]


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_training_within_a_grey_level(tmp_path: Path, resize: Resize, channels: int) -> None:
    shape = (6, 8, channels)
    inner = onnx.load(save(tmp_path / "m.onnx", tiny_graph(shape), metadata(shape)))
    full = Preprocess(resize=resize, height=6, width=8, channels=channels)
    for height, width in SIZES:
        picture = noisy(tmp_path / "x.png", height, width)
        whole = Preprocess(resize="squash", height=height, width=width, channels=channels)
        pictures = prepare_file(picture.read_bytes(), preprocess=whole).pixels[None].repeat(2, axis=0)
        found = resized(resize_inside(inner, input_shape=shape, resize=resize), pictures)
        expected = prepare_file(picture.read_bytes(), preprocess=full).pixels
        assert np.abs(found.astype(int) - expected).max() <= 1
        if (height, width) == (6, 8):
            np.testing.assert_array_equal(found[0], expected)


def test_it_is_a_whole_model_that_answers_alike(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata())
    (tmp_path / "any.onnx").write_bytes(check(resize_inside(onnx.load(path), input_shape=(6, 8, 1), resize="squash")))
    own, any_size = (Model.open(tmp_path / name, provider="cpu") for name in ("m.onnx", "any.onnx"))
    assert any_size.check_golden().passed
    assert any_size.image_shape == (6, 8, 1)
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 1), dtype=np.uint8)
    np.testing.assert_array_equal(any_size.predict(images).logits, own.predict(images).logits)
    assert any_size.session.ort.get_inputs()[0].shape == ["batch", "height", "width", 1]
