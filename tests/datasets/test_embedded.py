from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets import catalog
from datasets.embedded import build
from datasets.store import ImageStore, TextStore

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def test_fashion_mnist_mini_is_whole_balanced_and_small() -> None:
    store = catalog.load("fashion-mnist-mini")
    assert isinstance(store, ImageStore)
    store.verify()
    assert store.counts == {"train": 9000, "valid": 1000, "test": 2000}
    assert store.image_shape == (28, 28, 1)
    for split, count in store.counts.items():
        assert np.bincount(store.labels(split)).tolist() == [count // 10] * 10
    assert "MIT" in store.licence
    assert store.path.stat().st_size < 6e6


def test_no_image_of_fashion_mnist_mini_stands_in_two_splits() -> None:
    store = catalog.load("fashion-mnist-mini")
    assert isinstance(store, ImageStore)
    train, valid, test = ({image.tobytes() for image in store.images(split)} for split in store.counts)
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_shakespeare_is_whole() -> None:
    store = catalog.load("shakespeare")
    assert isinstance(store, TextStore)
    store.verify()
    assert store.counts == {"train": 1_150_204, "valid": 63_559, "test": 64_289}
    assert len(store.vocabulary) == 10_000
    first = " ".join(store.vocabulary[token] for token in store.stream("train")[:10])
    assert first == "all's well that ends well <eos> by william shakespeare <eos>"


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_mini_is_built_again_to_the_same_pixels(tmp_path: Path) -> None:
    build.build_fashion_mnist_mini(DEBIAN_FASHION_MNIST, tmp_path / "again.h5")
    assert catalog.load(str(tmp_path / "again.h5")).sha256 == catalog.load("fashion-mnist-mini").sha256
