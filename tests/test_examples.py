"""The programs of `examples/` do what they say, against a real model and a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.runtime.conftest import SHAPE, metadata, save, tiny_graph
from tests.runtime.serving.conftest import serving

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of brightness."""
    return save(tmp_path_factory.mktemp("models") / "tiny.onnx", tiny_graph(), metadata())


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that the model calls bright."""
    path = tmp_path_factory.mktemp("pictures") / "bright.png"
    Image.new("RGB", (40, 30), "white").save(path)
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with serving(model) as running:
        yield f"http://127.0.0.1:{running.port}"


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_reading_the_file_without_the_toolchain(model: Path, bright: Path) -> None:
    text = (EXAMPLES / "read_onnx.py").read_text()
    assert not any(f"import {package}" in text for package in ("runtime", "exporter", "searcher", "datasets"))
    lines = run("read_onnx.py", model, bright).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["bright", "grey", "dark"]


def test_reading_the_file_crops_where_the_model_says_so(tmp_path: Path) -> None:
    preprocess = metadata()["preprocess"] | {"resize": "center_crop"}
    model = save(tmp_path / "cropping.onnx", tiny_graph(), metadata(preprocess=preprocess))
    picture = Image.new("L", (10 * SHAPE[1], SHAPE[0]), 0)
    picture.paste(255, (4 * SHAPE[1], 0, 6 * SHAPE[1], SHAPE[0]))
    picture.save(tmp_path / "wide.png")
    assert run("read_onnx.py", model, tmp_path / "wide.png").stdout.split()[1] == "bright"


def test_the_client_prints_classes_and_says_what_is_wrong(server: str, bright: Path, model: Path) -> None:
    assert run("client.py", server, bright).stdout.split()[1] == "bright"
    wrong = run("client.py", server, model)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
    assert len(wrong.stderr.splitlines()) == 1


def test_the_page_and_its_answers_come_from_one_site(server: str, bright: Path, model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "browser" / "serve.py"), server, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        site = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{site}/", timeout=10) as page:
            assert b'fetch("classify"' in page.read()
        with urllib.request.urlopen(f"{site}/classify", data=bright.read_bytes(), timeout=10) as answer:
            assert json.load(answer)["classes"][0]["class"] == "bright"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{site}/classify", data=b"no picture", timeout=10)
        assert "not a picture" in json.load(caught.value)["error"]
    finally:
        process.kill()
        process.wait()


def test_the_custom_operation_is_searched_and_costs_what_it_says(tmp_path: Path) -> None:
    script = """
import custom_operation, torch
from searcher.arch.operations import CELL_COSTS
from searcher.arch.spaces import micro
from searcher.nn.kernels.norm import batch_norm
from searcher.nn.operations import make_cell_operation
custom_operation.register()
micro.MicroSpace(2, (*micro.PUBLISHED_OPERATIONS, custom_operation.NAME))
for stride, side in ((1, 7), (2, 4)):
    operation = make_cell_operation(custom_operation.NAME, 8, stride=stride, norm=batch_norm(running_statistics=True))
    assert operation(torch.zeros(1, 8, 7, 7)).shape == (1, 8, side, side)
    weights = sum(parameter.numel() for parameter in operation.parameters())
    assert weights == CELL_COSTS[custom_operation.NAME]((7, 7), 8, stride=stride).parameters
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=tmp_path)
