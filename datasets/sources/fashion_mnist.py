"""Fashion-MNIST from its four original idx files, plain or gzipped.

An idx file is two zero bytes, a type code, the number of axes, the length of each as a big-endian 32-bit number, and
the values. Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from datasets.sources.download import RemoteFile
from datasets.splits import stratified_split
from datasets.store import StoreError
from datasets.store_writer import write_image_store

CLASSES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
SOURCE = "Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist (arXiv:1708.07747)"
LICENCE = "MIT, copyright 2017 Zalando SE, https://tech.zalando.com"

_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = (
    RemoteFile(
        f"{_ADDRESS}/train-images-idx3-ubyte.gz",
        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        num_bytes=26_421_880,
    ),
    RemoteFile(
        f"{_ADDRESS}/train-labels-idx1-ubyte.gz",
        sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        num_bytes=29_515,
    ),
    RemoteFile(
        f"{_ADDRESS}/t10k-images-idx3-ubyte.gz",
        sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        num_bytes=4_422_102,
    ),
    RemoteFile(
        f"{_ADDRESS}/t10k-labels-idx1-ubyte.gz",
        sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        num_bytes=5_148,
    ),
)
_UBYTE = 0x08


def build(folder: Path, path: Path, *, seed: int = 0) -> None:
    """Write the store at `path` from the files in `folder`; a tenth of train, by class, becomes valid.

    Raises: StoreError: a file is missing or damaged.
    """
    images, labels = read_part(folder, "train")
    parts = stratified_split(labels, fractions={"train": 0.9, "valid": 0.1}, seed=seed)
    write_image_store(
        path,
        name="fashion-mnist",
        splits={split: (images[rows], labels[rows]) for split, rows in parts.items()}
        | {"test": read_part(folder, "t10k")},
        classes=CLASSES,
        source=SOURCE,
        licence=LICENCE,
    )


def read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28, 1] and labels int64 [N] of the original part, `train` or `t10k`."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise StoreError(
            f"{folder}: {part} has images {list(images.shape)} and labels {list(labels.shape)}, "
            "expected [N, H, W] and [N]"
        )
    return images[..., None], labels.astype(np.int64)


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file of unsigned bytes at `path`, or gzipped at `path`.gz.

    Raises: StoreError: neither file exists, or it is not an idx file of unsigned bytes.
    """
    found = next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)
    if found is None:
        raise StoreError(f"{path.parent}: holds neither {path.name} nor {path.name}.gz")
    try:
        data = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{found}: damaged ({error}); download it again") from error
    if len(data) < 4 or data[:3] != bytes((0, 0, _UBYTE)):
        raise StoreError(f"{found}: not an idx file of unsigned bytes")
    header_length = 4 + 4 * data[3]
    if len(data) < header_length:
        raise StoreError(f"{found}: cut short inside its header; download it again")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).tolist()
    if len(data) - header_length != math.prod(shape):
        raise StoreError(f"{found}: {len(data) - header_length} bytes for an array {shape}; download it again")
    return np.frombuffer(data, np.uint8, offset=header_length).reshape(shape)
