"""The recipes of docs/preprocessing.md give the pixels that the toolchain gives, within one grey level.

Pillow 13 takes the two passes in another order for some sizes, with another rounding between them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.models.images import Preprocess, prepare_file

PAGE = Path(__file__).parents[1] / "docs" / "preprocessing.md"
SIZES = [(224, 224), (31, 17), (9, 40), (28, 28), (5, 4), (1, 3)]
PREPROCESSES = [
    Preprocess(resize=resize, height=height, width=width, channels=channels)  # type: ignore[arg-type]
    for resize in ("squash", "center_crop")
    for height, width in ((28, 28), (9, 20))
    for channels in (1, 3)
]


def recipe(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]


def noisy(path: Path, height: int, width: int, *, orientation: int = 1) -> Path:
    """A picture whose neighbours differ as much as they can, which any other way of resizing tells."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def largest_difference(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected).max())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    upright = [noisy(folder / f"{height}x{width}.png", height, width) for height, width in SIZES]
    return [*upright, noisy(folder / "turned.png", 30, 20, orientation=6)]


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=str)
def test_the_numpy_recipe(pictures: list[Path], preprocess: Preprocess) -> None:
    names: dict[str, Any] = {}
    exec(recipe("python"), names)
    for picture in pictures:
        found = names["prepared"](picture, asdict(preprocess))
        assert largest_difference(found, prepare_file(picture.read_bytes(), preprocess=preprocess).pixels) <= 1


def test_pictures_that_shrink_alike_in_both_directions_are_equal_to_the_bit(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(recipe("python"), names)
    picture = noisy(tmp_path / "square.png", 224, 224)
    for preprocess in PREPROCESSES:
        if preprocess.height == preprocess.width:
            found = names["prepared"](picture, asdict(preprocess))
            np.testing.assert_array_equal(found, prepare_file(picture.read_bytes(), preprocess=preprocess).pixels)


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=str)
def test_the_opencv_recipe(pictures: list[Path], preprocess: Preprocess) -> None:
    pytest.importorskip("cv2")
    names: dict[str, Any] = {}
    exec(recipe("python") + recipe("python", 1), names)
    for picture in pictures:
        found = names["prepared_by_opencv"](picture, asdict(preprocess))
        assert largest_difference(found, prepare_file(picture.read_bytes(), preprocess=preprocess).pixels) <= 1


def test_the_javascript_recipe_is_what_the_page_of_an_export_runs() -> None:
    file = PAGE.parents[1] / "exporter" / "delivery" / "page" / "preprocess.js"
    assert recipe("javascript") in file.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_javascript_recipe(pictures: list[Path], tmp_path: Path) -> None:
    tasks = []
    for picture in pictures:
        pixels = np.asarray(Image.open(picture).convert("RGBA"))
        if picture.stem == "turned":  # a browser turns it
            pixels = np.rot90(pixels, -1)
        tasks += [
            {"rgba": pixels.ravel().tolist(), "height": pixels.shape[0], "width": pixels.shape[1], "to": asdict(one)}
            for one in PREPROCESSES
        ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    program = recipe("javascript") + (
        'const tasks = JSON.parse(require("fs").readFileSync(process.argv[2]));'
        "const one = (t) => Array.from(prepared(Uint8ClampedArray.from(t.rgba), t.height, t.width, t.to));"
        "const results = tasks.map(one);"
        "console.log(JSON.stringify(results));"
    )
    (tmp_path / "recipe.js").write_text(program)
    done = subprocess.run(
        ["node", "recipe.js", "tasks.json"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    expected = [
        prepare_file(picture.read_bytes(), preprocess=one).pixels for picture in pictures for one in PREPROCESSES
    ]
    for found, wanted in zip(json.loads(done.stdout), expected, strict=True):
        assert largest_difference(np.array(found).reshape(wanted.shape), wanted) <= 1
