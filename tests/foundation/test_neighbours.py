"""Hugging Face's package `datasets` in the same environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]


def run(python: Path | str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ENAS_DATA": str(folder / "data")}
    return subprocess.run(
        [str(python), "-m", "enas", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_told(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (
        "Hugging Face's, of the same name, has taken its place; give this tool an environment of its own" in done.stderr
    )


def test_a_command_says_that_another_package_has_taken_the_place_of_ours(tmp_path: Path) -> None:
    shutil.copy(ROOT / "enas.py", tmp_path)
    for package in ("foundation", "datasets"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.h5", "__pycache__"))
    assert run(sys.executable, tmp_path, "data", "list").returncode == 0
    (tmp_path / "datasets" / "__init__.py").write_text("from datasets.splits import NamedSplit\n")
    (tmp_path / "datasets" / "splits.py").write_text("class NamedSplit: ...\n")
    assert_told(run(sys.executable, tmp_path, "data", "list"))
    assert_told(run(sys.executable, tmp_path, "predict", "model.onnx", "x.png"))
    assert run(sys.executable, tmp_path, "--help").returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_packages_in_one_environment_are_told_or_ours_works(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    fetched = subprocess.run([*pip, "download", "--no-deps", "--dest", str(wheels), "datasets"], check=False)
    if fetched.returncode:
        pytest.skip("no package index can be reached")
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
    theirs, ours = next(wheels.glob("datasets-*")), next(wheels.glob("enas_toolchain-*"))
    for order in ((theirs, ours), (ours, theirs)):
        place = tmp_path / order[0].name
        venv.create(place, with_pip=False)
        python = place / "bin" / "python"
        for wheel in order:
            subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
        # Our dependencies, from where the tests have them.
        packages = next(place.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
        done = run(python, tmp_path, "data", "list")
        if order[-1] == theirs:
            assert_told(done)
        else:
            assert done.returncode == 0, done.stderr
