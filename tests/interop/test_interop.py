"""Exported models give their answers in programs that are not ours; `make test-interop` installs those."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.conversion.convert import check
from exporter.conversion.transforms.passes import transform
from tests.exporter.conversion.transforms.networks import SPACES, as_recorded, deployed, images, random_spec

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / ".npm-interop" / "node_modules"
TOOLS = {
    "opencv4": "opencv",
    "opencv5": "opencv",
    "openvino": "openvino",
    "onnxruntime-oldest": "onnxruntime",
    "onnxruntime-newest": "onnxruntime",
}
# Odd sizes, at which a reduction fills up its map, and even ones; a map of one row or column at the end, too.
SIZES = ((28, 28), (25, 27), (15, 14), (9, 5))
CHANNELS = (8, 32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[tuple[int, int, int], np.ndarray]]:
    """Files, with the shape of their images and torch's logits."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for space in SPACES:
        for number, (height, width) in enumerate(SIZES):
            for channels in CHANNELS:
                shape = (height, width, 3)
                network = deployed(random_spec(space, number, input_shape=shape, channels=channels))
                path = folder / f"{space}-{height}x{width}-{channels}.onnx"
                path.write_bytes(check(transform(as_recorded(network, shape))))
                with torch.no_grad():
                    found[path] = shape, network(torch.from_numpy(images(shape)))[0].numpy()
    return found


def python_of(environment: str) -> Path:
    return ROOT / f".venv-{environment}" / "bin" / "python"


def environment(name: str) -> object:
    is_missing = not python_of(name).exists()
    return pytest.param(name, marks=pytest.mark.skipif(is_missing, reason="needs make test-interop"))


@pytest.mark.parametrize("name", [environment(name) for name in TOOLS])
def test_answers_are_those_of_torch(
    name: str, models: dict[Path, tuple[tuple[int, int, int], np.ndarray]], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("answer.py")
    for path, (shape, expected) in models.items():
        np.save(tmp_path / "images.npy", images(shape))
        run([python_of(name), script, TOOLS[name], tmp_path / "images.npy", path], at=path)
        compare(np.load(path.with_suffix(".npy")), expected, f"{name}: {path.name}")


@pytest.mark.skipif(not (NODE_MODULES / "onnxruntime-node").exists(), reason="needs npm and make test-interop")
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_answers_of_node_are_those_of_torch(
    models: dict[Path, tuple[tuple[int, int, int], np.ndarray]], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("answer.js")
    for path, (shape, expected) in models.items():
        images(shape).tofile(tmp_path / "images.bin")
        sizes = ",".join(map(str, images(shape).shape))
        run(["node", script, tmp_path / "images.bin", sizes, path, tmp_path / "logits.bin"], at=path)
        found = np.fromfile(tmp_path / "logits.bin", dtype=np.float32).reshape(expected.shape)
        compare(found, expected, f"onnxruntime-node: {path.name}")


def run(line: list[str | Path], *, at: Path) -> None:
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=at.parent, env=environment)
    assert done.returncode == 0, f"{at.name}: {done.stderr[-2000:]}"


def compare(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4, err_msg=what)
