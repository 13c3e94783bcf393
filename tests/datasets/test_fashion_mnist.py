from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.sources import fashion_mnist
from datasets.store import ImageStore, StoreError, open_store
from tests.datasets.conftest import idx


def test_a_tenth_of_train_becomes_valid_by_class(originals: Path, tmp_path: Path) -> None:
    fashion_mnist.build(originals, tmp_path / "x.h5")
    store = open_store(tmp_path / "x.h5")
    assert isinstance(store, ImageStore)
    assert store.counts == {"train": 180, "valid": 20, "test": 20}
    assert np.bincount(store.labels("valid")).tolist() == [2] * 10
    whole, _ = fashion_mnist.read_part(originals, "train")
    both = np.concatenate([store.images("train"), store.images("valid")])
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in whole)


def test_unpacked_files_serve_as_well(originals: Path, tmp_path: Path) -> None:
    fashion_mnist.build(originals, tmp_path / "packed.h5")
    for path in originals.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    fashion_mnist.build(originals, tmp_path / "raw.h5")
    assert (tmp_path / "raw.h5").read_bytes() == (tmp_path / "packed.h5").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "holds neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte.gz"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "train-labels-idx1-ubyte.gz: damaged"),
        (lambda path: path.write_bytes(b"<html>"), "train-labels-idx1-ubyte.gz: damaged (Not a gzipped file"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x0d\1")), "not an idx file of unsigned bytes"),
        (lambda path: path.write_bytes(gzip.compress(idx(np.arange(9))[:-1])), "8 bytes for an array [9]"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\3\0")), "cut short inside its header"),
        (lambda path: path.write_bytes(gzip.compress(idx(np.arange(9)))), "images [200, 4, 4] and labels [9]"),
    ],
)
def test_a_damaged_original_is_named(
    originals: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(originals / "train-labels-idx1-ubyte.gz")
    with pytest.raises(StoreError, match=re.escape(message)):
        fashion_mnist.build(originals, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
