"""Exported models give their answers in programs that are not ours; `make test-interop` installs those."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.convert import check
from exporter.transforms.passes import transform
from tests.exporter.transforms.networks import SPACES, as_recorded, deployed, images, random_spec

ROOT = Path(__file__).parents[2]
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


def environments() -> Iterator[object]:
    for name in TOOLS:
        is_missing = not python_of(name).exists()
        yield pytest.param(name, marks=pytest.mark.skipif(is_missing, reason="needs make test-interop"))


@pytest.mark.parametrize("environment", environments())
def test_answers_are_those_of_torch(
    environment: str, models: dict[Path, tuple[tuple[int, int, int], np.ndarray]], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("answer.py")
    for path, (shape, expected) in models.items():
        np.save(tmp_path / "images.npy", images(shape))
        line = [python_of(environment), script, TOOLS[environment], tmp_path / "images.npy", path]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, f"{path.name}: {done.stderr[-2000:]}"
        np.testing.assert_allclose(
            np.load(path.with_suffix(".npy")), expected, atol=1e-4, rtol=1e-4, err_msg=f"{environment}: {path.name}"
        )
