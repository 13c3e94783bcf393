from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundation import pictures as decoder
from foundation.pictures import PictureError, read_file
from runtime.models.images import ImageError, Preprocess, prepare_file

GREY = Preprocess(resize="squash", height=6, width=8, channels=1)
COLOUR = Preprocess(resize="squash", height=6, width=8, channels=3)
CROP = Preprocess(resize="center_crop", height=4, width=4, channels=1)


def _save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def _prepared(path: Path, *, preprocess: Preprocess) -> np.ndarray:
    return prepare_file(read_file(path), preprocess=preprocess).pixels


@pytest.mark.parametrize(("preprocess", "shape"), [(GREY, (6, 8, 1)), (COLOUR, (6, 8, 3))])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_any_picture_gets_the_models_shape(
    tmp_path: Path, preprocess: Preprocess, shape: tuple[int, int, int], suffix: str
) -> None:
    path = _save(tmp_path / f"x.{suffix}", np.full((31, 17, 3), 90, np.uint8))
    pixels = _prepared(path, preprocess=preprocess)
    assert (pixels.shape, pixels.dtype) == (shape, np.uint8)
    assert np.all(np.abs(pixels.astype(int) - 90) <= 1)


def test_a_picture_of_the_models_size_passes_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_prepared(_save(tmp_path / "x.png", pixels), preprocess=COLOUR), pixels)


def test_a_colour_picture_gives_a_grey_model_its_luminance(tmp_path: Path) -> None:
    path = _save(tmp_path / "green.png", np.full((6, 8, 3), (0, 255, 0), np.uint8))
    # ITU-R 601: 0.587 of the light is green.
    assert np.unique(_prepared(path, preprocess=GREY)) == [150]


def test_the_crop_keeps_proportions_and_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 200
    assert np.unique(_prepared(_save(tmp_path / "wide.png", pixels), preprocess=CROP)) == [200]


def test_the_camera_orientation_is_followed(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    prepared = _prepared(_save(tmp_path / "x.png", pixels, exif=exif), preprocess=CROP)
    assert prepared[0].max() == 0
    assert prepared[-1].min() == 255


def test_sixteen_bits_a_pixel_keep_their_shades(tmp_path: Path) -> None:
    path = _save(tmp_path / "deep.png", np.full((6, 8), 0x8000, np.uint16))
    assert np.unique(_prepared(path, preprocess=GREY)) == [0x80]


def _message(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        _prepared(path, preprocess=GREY)
    return str(caught.value)


def test_what_is_not_a_picture_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    assert _message(path) == "no such file"
    path.write_text("not a picture")
    assert _message(path) == "not a picture"
    assert _message(tmp_path) == "a folder, not a picture"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_cut_short_anywhere_is_told_or_read(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    path = _save(tmp_path / f"x.{suffix}", noise)
    whole = path.read_bytes()
    refused = 0
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        try:
            _prepared(path, preprocess=GREY)
        except PictureError:
            refused += 1
    assert refused >= len(whole) // 11 - 4


def test_a_picture_that_unfolds_beyond_measure_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_PIXELS", 99)
    path = _save(tmp_path / "bomb.png", np.zeros((10, 10), np.uint8))
    assert _message(path) == "too large a picture; at most 80 million pixels are allowed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": "stretch"}, "resize is 'stretch', but must be one of squash, center_crop"),
        ({"channels": 4}, "channels is 4, but must be one of 1, 3"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', but must be one of bilinear"),
        ({"height": 0}, "height is 0, but must be a whole number above 0"),
        ({"width": "8"}, "width is '8', but must be a whole number above 0"),
    ],
)
def test_an_unknown_preprocess_is_refused(change: dict[str, object], message: str) -> None:
    document = {"resize": "squash", "height": 6, "width": 8, "channels": 1, "interpolation": "bilinear"}
    with pytest.raises(ImageError) as caught:
        Preprocess.from_json(document | change)
    assert str(caught.value) == message


def test_a_preprocess_may_have_keys_that_are_not_known_and_must_have_the_others() -> None:
    document = {"resize": "squash", "height": 6, "width": 8, "channels": 1}
    assert Preprocess.from_json(document | {"antialias": True}) == GREY
    del document["height"], document["channels"]
    with pytest.raises(ImageError, match=r"^it has no height, channels$"):
        Preprocess.from_json(document)
