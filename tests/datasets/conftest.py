from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import enas
from datasets.store import ImageStore, open_store, write_image_store


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    folder = tmp_path / "data"
    monkeypatch.setenv("ENAS_DATA", str(folder))
    return folder


@pytest.fixture
def run(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run `enas data ARGUMENTS` as the console command does."""

    def run_command(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["enas", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            enas.main()
        captured = capsys.readouterr()
        assert isinstance(exit_info.value.code, int)
        return Outcome(exit_info.value.code, captured.out, captured.err)

    return run_command


def random_images(count: int, shape: tuple[int, int, int], *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C], all different, and labels int64 [N], every class in turn."""
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, *shape), np.uint8), np.arange(count, dtype=np.int64) % num_classes


def write_small_store(
    path: Path, *, counts: tuple[int, int, int] = (48, 12, 20), shape: tuple[int, int, int] = (8, 6, 3)
) -> ImageStore:
    """A store of three classes."""
    splits = dict(zip(("train", "valid", "test"), counts, strict=True))
    write_image_store(
        path,
        name="small",
        splits={split: random_images(count, shape, num_classes=3) for split, count in splits.items()},
        classes=("red", "green", "blue"),
        source="random numbers",
        licence="none",
    )
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store
