"""The folder of `enas export --web` in Chromium: answers are Python's, and nothing outside of it is asked for."""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exporter.web import write_web
from foundation.pictures import read_header, read_picture
from runtime.models.model import Model
from tests.exporter.transforms.networks import exported
from tests.interop.browser import MISSING, Browser, browser
from tests.test_preprocessing_recipes import noisy, recipe

PACKAGE = Path(__file__).parents[2] / ".npm-interop" / "node_modules" / "onnxruntime-web"
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}, in Debian chromium and chromium-driver"),
    pytest.mark.skipif(not PACKAGE.exists(), reason="needs npm and make test-interop"),
]
MODELS = {
    "colour": exported("stages", 8, input_shape=(28, 28, 3)),
    "cropped": exported("micro", 1, input_shape=(9, 20, 3), resize="center_crop"),
    "grey": exported("macro", 2, input_shape=(15, 14, 1)),
}
READY = "/^(not )?ready$/.test(document.getElementById('state').textContent)"
ANSWERED = "/^model .* ms/.test(document.getElementById('latency').textContent)"
ANSWERS = """
return [...document.querySelectorAll("#classes li")]
  .map((row) => [row.querySelector("span").textContent, row.querySelector("meter").value]);
"""


class Site(SimpleHTTPRequestHandler):
    """A server that knows as little of kinds of files as one may."""

    extensions_map: ClassVar = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
        "": "application/octet-stream",
    }

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a model."""
    root = tmp_path_factory.mktemp("web")
    for name, model in MODELS.items():
        (root / "runs" / name).mkdir(parents=True)
        (root / "runs" / name / "model.onnx").write_bytes(model)
        write_web(root / "runs" / name, root / name, runtime=PACKAGE)
    return root


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Large and small, of one pixel, turned by EXIF, grey, with transparency, and with colours to be converted."""
    shapes = [(224, 224), (31, 17), (9, 40), (1, 3)]
    found = [noisy(tmp_path / f"{height}x{width}.png", height, width) for height, width in shapes]
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    gamma = PngInfo()
    gamma.add(b"gAMA", struct.pack(">I", 100_000))
    Image.fromarray(pixels[..., :3]).save(tmp_path / "linear.png", pnginfo=gamma)
    pixels[..., 3] = np.where(pixels[..., 3] < 128, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "transparent.png")
    others = ("turned.png", "turned.jpg", "grey.png", "linear.png", "transparent.png")
    return [*found, *(tmp_path / name for name in others)]


def as_the_recipe(picture: Path, model: Model) -> np.ndarray:
    """The picture in the model's size. Pillow resizes some in the other order, with a grey level of difference."""
    names: dict[str, Any] = {}
    exec(recipe("python"), names)
    own, data = model.preprocess, picture.read_bytes()
    pixels = read_picture(data, size=read_header(data).size, channels=own.channels, resize="squash").pixels
    return names["resized"](pixels, own.height, own.width, own.resize)


def answers(window: Browser, picture: Path) -> dict[str, float]:
    window.run("document.getElementById('latency').textContent = ''")
    window.choose("#file", picture)
    window.wait_for(ANSWERED)
    return dict(window.run(ANSWERS))


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_python(name: str, folder: Path, site: str, window: Browser, pictures: list[Path]) -> None:
    model = Model.open(folder / "runs" / name, provider="cpu")
    window.open(f"{site}/{name}/")
    window.wait_for(READY)
    for picture in pictures:
        found = answers(window, picture)
        expected = model.predict(as_the_recipe(picture, model)[None]).probabilities[0]
        for label, probability in zip(model.classes, expected, strict=True):
            assert found[label] == pytest.approx(probability, abs=1e-4), f"{picture.name}: {label}"
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert window.run("return document.title") == name


def test_nothing_outside_of_the_folder_is_asked_for(site: str, window: Browser, pictures: list[Path]) -> None:
    window.requests()
    window.open(f"{site}/colour/")
    window.wait_for(READY)
    answers(window, pictures[0])
    asked = {address for address in window.requests() if not address.startswith(("blob:", "data:"))}
    assert f"{site}/colour/model.onnx" in asked
    assert {address for address in asked if not address.startswith(f"{site}/colour/")} == set()
    reason = window.run(
        "return fetch(arguments[0]).then(() => 'it came', (error) => error.message)", "http://127.0.0.1:9/"
    )
    assert reason == "Failed to fetch"
    inline = "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s);"
    assert window.run(f"{inline} return window.ran === undefined")


def test_what_is_not_a_picture_is_told_and_the_next_picture_is_classified(
    site: str, window: Browser, pictures: list[Path], tmp_path: Path
) -> None:
    window.open(f"{site}/grey/")
    window.wait_for(READY)
    (tmp_path / "notes.txt").write_text("no picture")
    window.choose("#file", tmp_path / "notes.txt")
    window.wait_for("!document.getElementById('error').hidden")
    assert "notes.txt is not a picture that this browser can read" in window.text()
    assert answers(window, pictures[0])
    assert window.run("return document.getElementById('error').hidden")


def test_a_model_that_answers_otherwise_here_is_not_ready(folder: Path, site: str, window: Browser) -> None:
    shutil.copytree(folder / "grey", folder / "other")
    about = json.loads((folder / "other" / "model.json").read_text())
    about["golden"]["logits"][1][0] += 1
    (folder / "other" / "model.json").write_text(json.dumps(about))
    window.open(f"{site}/other/")
    window.wait_for(READY)
    assert window.run("return document.getElementById('state').textContent") == "not ready"
    assert "the model's own samples come out otherwise in this browser" in window.text()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_the_window(site: str, window: Browser, pictures: list[Path], width: int, dark: bool) -> None:
    window.look(width=width, dark=dark)
    window.open(f"{site}/colour/")
    window.wait_for(READY)
    answers(window, pictures[0])
    content, own = window.run("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert content <= own
