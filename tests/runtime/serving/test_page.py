"""The pages, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import PROGRAM, Page, browsing
from tests.runtime.serving.conftest import Server, serving

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
DROP = """
(async () => {
  const blob = await new Promise((done) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 20;
    canvas.getContext("2d").fillRect(0, 0, 20, 20);
    canvas.toBlob(done, "image/png");
  });
  const data = new DataTransfer();
  data.items.add(new File([blob], "dark.png", { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("L", (30, 20), 255).save(tmp_path / "bright.png")
    return tmp_path / "bright.png"


def test_a_picture_is_classified_on_the_page(server: Server, page: Page, picture: Path) -> None:
    page.open(f"http://127.0.0.1:{server.port}/")
    page.until("document.getElementById('state').textContent === 'ready'")
    assert page.evaluate("document.querySelector('#model').value") == "tiny"
    assert "91.25 % (test)" in page.evaluate("document.getElementById('about').textContent")
    page.until("document.getElementById('drawing').naturalWidth === 9")

    page.choose_file("#file", picture)
    page.until("document.querySelectorAll('#classes li').length === 3")
    assert page.evaluate("document.querySelector('#classes span').textContent") == "bright"
    assert "in the server" in page.evaluate("document.getElementById('latency').textContent")

    page.evaluate(DROP)
    page.until("document.querySelector('#classes span').textContent === 'dark'")
    page.until("Number(document.querySelector('#figures dd:nth-of-type(2)').textContent) >= 2")
    assert page.console == []


def test_what_is_no_picture_is_told_so_on_the_page(server: Server, page: Page, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no picture")
    page.open(f"http://127.0.0.1:{server.port}/")
    page.until("document.getElementById('state').textContent === 'ready'")
    page.choose_file("#file", tmp_path / "no.png")
    message = page.until("!document.getElementById('error').hidden && document.getElementById('error').textContent")
    assert message == "the picture: not a picture"


def test_the_page_asks_for_the_token(model_path: Path, page: Page) -> None:
    token = "sixteen letters or more"
    with serving(model_path, environment={"ENAS_TOKEN": token}) as server:
        page.open(f"http://127.0.0.1:{server.port}/")
        page.until("!document.getElementById('token-form').hidden")
        page.evaluate(f"document.getElementById('token').value = {token!r}")
        page.evaluate("document.getElementById('token-form').requestSubmit()")
        page.until("document.getElementById('state').textContent === 'ready'")


def test_the_api_is_readable(server: Server, page: Page) -> None:
    page.console.clear()
    page.open(f"http://127.0.0.1:{server.port}/docs")
    page.until("document.querySelectorAll('details').length > 15")
    assert "/v2/models/{model}/infer" in page.evaluate("document.body.innerText")
    assert page.console == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_the_window(server: Server, page: Page, picture: Path, width: int, dark: bool) -> None:
    page.open(f"http://127.0.0.1:{server.port}/")
    page.look(width=width, dark=dark)
    page.until("document.getElementById('state').textContent === 'ready'")
    page.choose_file("#file", picture)
    page.until("document.querySelectorAll('#classes li').length === 3")
    assert page.evaluate(FITS)
    page.open(f"http://127.0.0.1:{server.port}/docs")
    page.look(width=width, dark=dark)
    page.until("document.querySelectorAll('details').length > 15")
    assert page.evaluate(FITS)
