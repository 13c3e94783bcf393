"""The data set store: one HDF5 file that contains a whole data set.

    /                 format, version, kind, name, source, licence, complete                      (attributes)
                      images: resize; text: tokens, `word` if missing                             (attributes)
    /<split>          sha256; images, train: mean, std                                            (attributes)
    images            /classes UTF-8;     /<split>/images uint8 [N, H, W, C], /<split>/labels int64 [N]
    text              /vocabulary UTF-8;  /<split>/tokens uint16 or uint32 [N], one flat stream
    <split>           train, and usually valid and test

The name of a split can join several by `+`, such as `train+valid`, which are then read one after the other.

Knows nothing of where data comes from, of torch, or of batches. `store_writer.py` writes a store atomically, with
`complete` as its last attribute. A store is checked once, on opening, without reading its pixels; `verify` reads them.
"""

# N images or tokens of a split, H W C of an image

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from datasets.store_format import SPLITS, problems_of
from datasets.tokens import Tokens
from foundation.pictures import Resize

CHUNK_BYTES = 1 << 20

_CURE = "fetch or import it again: `enas data fetch NAME` or `enas data import FOLDER --name NAME`"


class StoreError(ValueError):
    """A data set that is unknown, missing, damaged or of the wrong kind."""


class StoreInUseError(StoreError):
    """A store that another program is writing."""


@dataclass(frozen=True)
class ImageStore:
    """A checked store of labelled images. The file is opened for every read, so several threads may read.

    A read raises StoreError if the file was replaced by one with other data.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel over train, in units of pixel / 255."""
    std: tuple[float, ...]
    """Per channel over train, in units of pixel / 255; at least 1 / 255."""
    source: str
    licence: str
    image_shape: tuple[int, int, int]
    """H, W, C."""
    counts: Mapping[str, int]
    """Images of each split."""
    sha256: Mapping[str, str]
    """Digest of each split: its pixels followed by its labels, as little-endian arrays in memory."""

    resize: Resize = "squash"
    """How the pictures were resized; new pictures need the same."""
    kind: Literal["images"] = "images"

    def count(self, split: str) -> int:
        """Images of a split."""
        return _count_of(self, split)

    def images(self, split: str) -> np.ndarray:
        """All images of a split: uint8 [N, H, W, C]."""
        return self.read(split, 0, self.count(split))

    def labels(self, split: str) -> np.ndarray:
        """All labels of a split: int64 [N]."""
        return _read_joined(self, split, "labels")

    def read(self, split: str, start: int, stop: int) -> np.ndarray:
        """The images of one range of a split: uint8 [stop - start, H, W, C]."""
        pieces = [np.empty((0, *self.image_shape), np.uint8)]
        for part in split.split("+"):
            count = _count_of(self, part)
            if start < count and stop > 0:
                pieces.append(_read(self, f"{part}/images", slice(max(start, 0), min(stop, count))))
            start, stop = start - count, stop - count
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def take(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """The images at the indices `numbers` [n] of a split, in that order: uint8 [n, H, W, C].

        Each chunk of the file is read once, and only one chunk at a time is in memory in addition to the images.
        """
        images = np.empty((len(numbers), *self.image_shape), np.uint8)
        length = self.chunk_length
        by_chunk = np.argsort(numbers // length, kind="stable")
        chunks, first = np.unique(numbers[by_chunk] // length, return_index=True)
        for chunk, places in zip(chunks.tolist(), np.split(by_chunk, first[1:]), strict=False):  # no numbers, no chunk
            start = chunk * length
            images[places] = self.read(split, start, start + length)[numbers[places] - start]
        return images

    def require_splits(self) -> None:
        """Raises: StoreError: train, valid or test is missing."""
        _require_splits(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all splits and the names of the classes; it differs if the data differs."""
        return _digest_of(self, self.classes)

    def nbytes(self, split: str) -> int:
        """Size of a split's pixels in memory, bytes."""
        return self.count(split) * self.image_nbytes

    @property
    def image_nbytes(self) -> int:
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def chunk_length(self) -> int:
        """Images in one compressed chunk: ranges that start and stop at its multiples are the cheapest to read."""
        return chunk_length_of(self.image_nbytes)

    def verify(self) -> None:
        """Read every pixel and label, and compare with the digests.

        Raises: StoreError: a split's bytes differ from those that were written.
        """
        for split, count in self.counts.items():
            digest = hashlib.sha256()
            for start in range(0, count, self.chunk_length):
                digest.update(self.read(split, start, min(start + self.chunk_length, count)).data)
            digest.update(self.labels(split).data)
            _compare_digest(self.path, split, digest.hexdigest(), self.sha256[split])


@dataclass(frozen=True)
class TextStore:
    """A checked store of token streams."""

    path: Path
    name: str
    vocabulary: tuple[str, ...]
    source: str
    licence: str
    counts: Mapping[str, int]
    """Tokens of each split."""
    sha256: Mapping[str, str]
    """Digest of each split's tokens, as a little-endian array in memory."""

    tokens: Tokens = "word"
    """The kind of token; new texts must be tokenised in the same way."""
    kind: Literal["text"] = "text"

    def count(self, split: str) -> int:
        """Tokens of a split."""
        return _count_of(self, split)

    def stream(self, split: str) -> np.ndarray:
        """A split's tokens as indices into the vocabulary: uint16 [N] or uint32 [N]."""
        return _read_joined(self, split, "tokens")

    def require_splits(self) -> None:
        """Raises: StoreError: train, valid or test is missing."""
        _require_splits(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all splits and the vocabulary; it differs if the data differs."""
        return _digest_of(self, self.vocabulary)

    def verify(self) -> None:
        """Read every token, and compare with the digests.

        Raises: StoreError: a split's bytes differ from those that were written.
        """
        for split in self.counts:
            digest = hashlib.sha256(self.stream(split).data).hexdigest()
            _compare_digest(self.path, split, digest, self.sha256[split])


# --- opening ---------------------------------------------------------------------------------------------------------


def open_store(path: Path) -> ImageStore | TextStore:
    """Open a store and check that it is complete and consistent; pixels are not read.

    Raises: StoreError: the file has problems; the message lists all of them and the remedy.
    """
    with _reading(path) as file:
        problems = problems_of(file)
        kind = file.attrs.get("kind")
        if problems:
            raise StoreError(f"{path}: {'; '.join(problems)}; {_CURE}")
        splits = [split for split in SPLITS if split in file]
        common: dict[str, Any] = {
            "path": path,
            **{key: str(file.attrs[key]) for key in ("name", "source", "licence")},
            "sha256": {split: str(file[split].attrs["sha256"]) for split in splits},
        }
        if kind == "text":
            return TextStore(
                vocabulary=tuple(file["vocabulary"].asstr()[:]),
                tokens=file.attrs.get("tokens", "word"),
                counts={split: len(file[split]["tokens"]) for split in splits},
                **common,
            )
        height, width, channels = file["train"]["images"].shape[1:]
        return ImageStore(
            classes=tuple(file["classes"].asstr()[:]),
            mean=tuple(file["train"].attrs["mean"].tolist()),
            std=tuple(file["train"].attrs["std"].tolist()),
            image_shape=(height, width, channels),
            resize=file.attrs["resize"],
            counts={split: len(file[split]["labels"]) for split in splits},
            **common,
        )


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """Open a store; errors of HDF5 become one line that names the file and the remedy."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, PermissionError):
            raise StoreError(f"{path}: may not be read: permission denied") from error
        text = str(error)
        if "unable to lock file" in text:
            raise StoreInUseError(f"{path}: another program has it open to write; close it there first") from error
        if "file signature not found" in text:
            raise StoreError(f"{path}: not an HDF5 file; {_CURE}") from error
        what = "cut short" if "truncated" in text else "damaged"
        raise StoreError(f"{path}: {what} ({text}); {_CURE}") from error


def _read(store: ImageStore | TextStore, dataset: str, places: slice = slice(None)) -> np.ndarray:
    """Returns a range of an array. Raises: StoreError: the file contains other data than when it was opened."""
    with _reading(store.path) as file:
        if any(split not in file or file[split].attrs.get("sha256") != found for split, found in store.sha256.items()):
            raise StoreError(
                f"{store.path}: '{store.name}' was replaced by other data while it was in use; import the earlier data "
                "again to go on with it, or start anew"
            )
        found: np.ndarray = file[dataset][places]
        return found


def _read_joined(store: ImageStore | TextStore, split: str, dataset: str) -> np.ndarray:
    _count_of(store, split)
    return np.concatenate([_read(store, f"{part}/{dataset}") for part in split.split("+")])


def _count_of(store: ImageStore | TextStore, split: str) -> int:
    count = 0
    for part in split.split("+"):
        if part not in store.counts:
            raise StoreError(f"{store.path}: '{store.name}' has no split '{part}'; it has {', '.join(store.counts)}")
        count += store.counts[part]
    return count


def _require_splits(store: ImageStore | TextStore) -> None:
    for split in SPLITS:
        _count_of(store, split)


def _digest_of(store: ImageStore | TextStore, strings: Sequence[str]) -> str:
    parts = [f"{split} {digest}" for split, digest in sorted(store.sha256.items())]
    return hashlib.sha256("\n".join([*parts, *strings]).encode()).hexdigest()


def _compare_digest(path: Path, split: str, found: str, written: str) -> None:
    if found != written:
        raise StoreError(f"{path}: {split} is not as it was written (sha256 {found}, expected {written}); {_CURE}")


def chunk_length_of(image_nbytes: int) -> int:
    return max(1, CHUNK_BYTES // image_nbytes)
