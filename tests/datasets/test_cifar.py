from __future__ import annotations

import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.sources.cifar import CIFAR10, CIFAR100, Cifar
from datasets.store import ImageStore, StoreError, open_store

NAMES = {10: [f"class{number}" for number in range(10)], 100: [f"class{number}" for number in range(100)]}


def batch(cifar: Cifar, count: int) -> dict[str, Any]:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
    return {cifar.labels_key: (np.arange(count) % num_classes(cifar)).tolist(), "data": pixels, "batch_label": "b"}


def num_classes(cifar: Cifar) -> int:
    return 10 if cifar is CIFAR10 else 100


def write_members(folder: Path, cifar: Cifar, protocol: int = 2) -> Path:
    members = folder / cifar.folder
    members.mkdir(parents=True)
    for name in (*cifar.train_files, cifar.test_file):
        (members / name).write_bytes(pickle.dumps(batch(cifar, 1000 if name == "train" else 200), protocol))
    meta = {cifar.classes_key: NAMES[num_classes(cifar)], "num_vis": 3072}
    (members / cifar.meta_file).write_bytes(pickle.dumps(meta, protocol))
    return members


def pack(folder: Path, cifar: Cifar) -> None:
    """Leave only the archive."""
    members = folder / cifar.folder
    with tarfile.open(folder / cifar.file.name, "w:gz") as tar:
        tar.add(members, arcname=cifar.folder)
    for path in members.iterdir():
        path.unlink()
    members.rmdir()


def open_images(path: Path) -> ImageStore:
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100], ids=lambda cifar: cifar.name)
def test_the_archive_becomes_a_store(tmp_path: Path, cifar: Cifar, protocol: int) -> None:
    write_members(tmp_path, cifar, protocol)
    pack(tmp_path, cifar)
    cifar.build(tmp_path, tmp_path / "x.h5")
    store = open_images(tmp_path / "x.h5")
    assert store.counts == {"train": 900, "valid": 100, "test": 200}
    assert store.image_shape == (32, 32, 3)
    assert store.classes == tuple(NAMES[num_classes(cifar)])
    planes = batch(cifar, 200)["data"].reshape(200, 3, 32, 32)
    np.testing.assert_array_equal(store.images("test")[7, 3, 5], planes[7, :, 3, 5])


def test_an_archive_as_python_2_wrote_it_is_read(tmp_path: Path) -> None:
    """Its strings are bytes, and numpy's module had another name."""
    members = write_members(tmp_path, CIFAR10)
    pixels = bytes(range(256)) * 12 * 10
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I10\nI3072\ntcnumpy\ndtype\n"
    array += (
        b"(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nT" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    labels = b"(lp1\n" + b"".join(b"I%d\na" % number for number in range(10))
    (members / "test_batch").write_bytes(b"(dU\x04data" + array + b"sU\x06labels" + labels + b"s.")
    CIFAR10.build(tmp_path, tmp_path / "x.h5")
    store = open_images(tmp_path / "x.h5")
    assert store.labels("test").tolist() == list(range(10))
    assert store.images("test")[0, 0, :3].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("packed", [True, False])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, packed: bool) -> None:
    members = write_members(tmp_path, CIFAR10)
    content = {"data": Malicious(tmp_path / "harm"), "labels": []}
    (members / "data_batch_3").write_bytes(pickle.dumps(content))
    if packed:
        pack(tmp_path, CIFAR10)
    with pytest.raises(StoreError, match=r"data_batch_3: refused: it asks for posix\.mkdir, which no array needs"):
        CIFAR10.build(tmp_path, tmp_path / "x.h5")
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a pickle", "test_batch: refused:"),
        (pickle.dumps([1, 2]), "test_batch: holds a list, expected a dict"),
        (pickle.dumps({"labels": [1]}), "test_batch has no 'data' of uint8 [N, 3072]"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [1, 2]}), "an array of type 'f8', expected 'u1'"),
        (pickle.dumps({"data": np.zeros((2, 3000), np.uint8), "labels": [1, 2]}), "no 'data' of uint8 [N, 3072]"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), "no 'labels' of 2 numbers"),
        (pickle.dumps({"data": np.array([print], object), "labels": [1]}), "refused: it asks for builtins.print"),
    ],
)
def test_a_wrong_member_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    members = write_members(tmp_path, CIFAR10)
    (members / "test_batch").write_bytes(content)
    with pytest.raises(StoreError, match=re.escape(message)):
        CIFAR10.build(tmp_path, tmp_path / "x.h5")


def test_a_missing_or_truncated_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds neither cifar-10-python\.tar\.gz nor a folder cifar-10-batches-py"):
        CIFAR10.build(tmp_path, tmp_path / "x.h5")
    write_members(tmp_path, CIFAR10)
    pack(tmp_path, CIFAR10)
    archive = tmp_path / CIFAR10.file.name
    archive.write_bytes(archive.read_bytes()[:10_000])
    with pytest.raises(StoreError, match=r"cifar-10-python\.tar\.gz: damaged .*; download it again"):
        CIFAR10.build(tmp_path, tmp_path / "x.h5")


def test_an_archive_without_a_member_is_named(tmp_path: Path) -> None:
    (write_members(tmp_path, CIFAR10) / "data_batch_2").unlink()
    pack(tmp_path, CIFAR10)
    with pytest.raises(StoreError, match="data_batch_2' not found; it is not the published archive"):
        CIFAR10.build(tmp_path, tmp_path / "x.h5")
