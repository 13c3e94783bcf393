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

from exporter.delivery.web import write_web
from foundation.pictures import read_header, read_picture
from runtime.models.model import Model
from tests.browser import PROGRAM, Page, browsing
from tests.exporter.conversion.transforms.networks import exported
from tests.test_preprocessing_recipes import noisy, recipe

PACKAGE = Path(__file__).parents[2] / ".npm-interop" / "node_modules" / "onnxruntime-web"
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium"),
    pytest.mark.skipif(not PACKAGE.exists(), reason="needs npm and make test-interop"),
]
MODELS = {
    "colour": partial(exported, "stages", 8, input_shape=(28, 28, 3)),
    "cropped": partial(exported, "micro", 1, input_shape=(9, 20, 3), resize="center_crop"),
    "grey": partial(exported, "macro", 2, input_shape=(15, 14, 1)),
}
STATE = "document.getElementById('state').textContent"
READY = f"/^(not )?ready$/.test({STATE})"
ANSWERED = "/^model .* ms/.test(document.getElementById('latency').textContent)"
ANSWERS = """
[...document.querySelectorAll("#classes li")]
  .map((row) => [row.querySelector("span").textContent, row.querySelector("meter").value])
"""
INLINE = """
(() => {
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  document.body.append(script);
  return window.ran === undefined;
})()
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
    for name, make in MODELS.items():
        (root / "runs" / name).mkdir(parents=True)
        (root / "runs" / name / "model.onnx").write_bytes(make())
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
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


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


def answers(page: Page, picture: Path) -> dict[str, float]:
    page.evaluate("document.getElementById('latency').textContent = ''")
    page.choose_file("#file", picture)
    page.until(ANSWERED)
    return dict(page.evaluate(ANSWERS))


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_python(name: str, folder: Path, site: str, page: Page, pictures: list[Path]) -> None:
    model = Model.open(folder / "runs" / name, provider="cpu")
    page.open(f"{site}/{name}/")
    page.until(READY)
    for picture in pictures:
        found = answers(page, picture)
        expected = model.predict(as_the_recipe(picture, model)[None]).probabilities[0]
        for label, probability in zip(model.classes, expected, strict=True):
            assert found[label] == pytest.approx(probability, abs=1e-4), f"{picture.name}: {label}"
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert page.evaluate("document.title") == name


def test_nothing_outside_of_the_folder_is_asked_for(site: str, page: Page, pictures: list[Path]) -> None:
    page.requests.clear()
    page.console.clear()
    page.open(f"{site}/colour/")
    page.until(READY)
    answers(page, pictures[0])
    asked = {address for address in page.requests if not address.startswith(("blob:", "data:", "about:"))}
    assert f"{site}/colour/model.onnx" in asked
    assert {address for address in asked if not address.startswith(f"{site}/colour/")} == set()
    assert page.console == []
    assert page.evaluate(INLINE)
    outside = "fetch('http://127.0.0.1:9/').then(() => 'it came', (error) => error.message)"
    assert page.evaluate(outside) == "Failed to fetch"
    assert "violates" in " ".join(page.console)


def test_what_is_not_a_picture_is_told_and_the_next_picture_is_classified(
    site: str, page: Page, pictures: list[Path], tmp_path: Path
) -> None:
    page.open(f"{site}/grey/")
    page.until(READY)
    (tmp_path / "notes.txt").write_text("no picture")
    page.choose_file("#file", tmp_path / "notes.txt")
    message = page.until("!document.getElementById('error').hidden && document.getElementById('error').textContent")
    assert message == "notes.txt is not a picture that this browser can read"
    assert answers(page, pictures[0])
    assert page.evaluate("document.getElementById('error').hidden")


def test_a_model_that_answers_otherwise_here_is_not_ready(folder: Path, site: str, page: Page) -> None:
    shutil.copytree(folder / "grey", folder / "other")
    about = json.loads((folder / "other" / "model.json").read_text())
    about["golden"]["logits"][1][0] += 1
    (folder / "other" / "model.json").write_text(json.dumps(about))
    page.open(f"{site}/other/")
    page.until(READY)
    assert page.evaluate(STATE) == "not ready"
    assert "the model's own samples come out otherwise" in page.evaluate("document.body.innerText")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_the_window(site: str, page: Page, pictures: list[Path], width: int, dark: bool) -> None:
    page.open(f"{site}/colour/")
    page.look(width=width, dark=dark)
    page.until(READY)
    answers(page, pictures[0])
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
