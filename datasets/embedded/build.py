"""Build the two stores that ship with the package from their originals.

    python -m datasets.embedded.build --fashion-mnist DIR --shakespeare DIR

DIR holds Fashion-MNIST's four idx files (Debian's package `dataset-fashion-mnist` installs them), and the text's
train.txt, valid.txt and test.txt. Equal originals give equal stores.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from datasets.sources import fashion_mnist, text_files
from datasets.store_format import SPLITS
from datasets.store_writer import write_image_store
from foundation.seeds import numpy_generator

FOLDER = Path(__file__).parent
_SEED = 2018


def build_fashion_mnist_mini(originals: Path, path: Path) -> None:
    """Draw 900 train and 100 valid images a class from the original train part, 200 test images a class from test."""
    train, test = (fashion_mnist.read_part(originals, part) for part in ("train", "t10k"))
    drawn = _draw(train[1], per_class=1000, stream="train")  # [10, 1000]
    parts = {
        "train": (train, drawn[:, :900]),
        "valid": (train, drawn[:, 900:]),
        "test": (test, _draw(test[1], per_class=200, stream="test")),
    }
    splits = {}
    for split, ((images, labels), rows_by_class) in parts.items():
        rows = np.sort(rows_by_class, axis=None)  # the originals' order, which mixes the classes
        splits[split] = (images[rows], labels[rows])
    write_image_store(
        path,
        name="fashion-mnist-mini",
        splits=splits,
        classes=fashion_mnist.CLASSES,
        source=f"{fashion_mnist.SOURCE}; 12,000 images drawn by class",
        licence=fashion_mnist.LICENCE,
    )


def build_shakespeare(originals: Path, path: Path) -> None:
    text_files.build(
        {split: originals / f"{split}.txt" for split in SPLITS},
        path,
        name="shakespeare",
        source="The complete works of William Shakespeare, from texts of Project Gutenberg; 10,000-word vocabulary",
        licence="Public domain",
        tokens="word",
    )


def _draw(labels: np.ndarray, *, per_class: int, stream: str) -> np.ndarray:
    """Indices of `per_class` random examples of every class: [classes, per_class]."""
    generator = numpy_generator(_SEED, "fashion-mnist-mini", stream)
    return np.stack([generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)])


@click.command()
@click.option("--fashion-mnist", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--shakespeare", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, show_default=True)
def main(fashion_mnist: Path, shakespeare: Path, out: Path) -> None:
    """Build fashion-mnist-mini.h5 and shakespeare.h5."""
    build_fashion_mnist_mini(fashion_mnist, out / "fashion-mnist-mini.h5")
    build_shakespeare(shakespeare, out / "shakespeare.h5")


if __name__ == "__main__":
    main()
