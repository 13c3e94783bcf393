"""The data set store: one HDF5 file that holds everything a data set is.

    /                 format, version, kind, name, source, licence, complete; images: resize      (attributes)
    /<split>          sha256; images, train: mean, std                                            (attributes)
    images            /classes UTF-8;     /<split>/images uint8 [N, H, W, C], /<split>/labels int64 [N]
    text              /vocabulary UTF-8;  /<split>/tokens uint16 or uint32 [N], one flat stream
    <split>           train, and mostly valid and test

Knows nothing of where data comes from, of torch, or of batches. A store is written whole or not at all, `complete`
being its last attribute; it is checked once, on opening, without reading its pixels. `verify` reads them all.
"""

# N images or tokens of a split, H W C of an image

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import h5py
import numpy as np

from datasets.files import whole_file

SPLITS = ("train", "valid", "test")
FORMAT = "enas-data-set"
VERSION = 1
CHUNK_BYTES = 1 << 20

Resize: TypeAlias = Literal["squash", "center_crop"]
"""How a raw picture is brought to a store's size: `squash` takes all of it out of proportion, `center_crop` the largest
middle part in proportion; both bilinear."""

ImageChunk: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images uint8 [n, H, W, C] and their labels int64 [n]."""

_CURE = "fetch or import it again: `enas data fetch NAME` or `enas data import FOLDER --name NAME`"


class StoreError(ValueError):
    """A data set that is unknown, absent, damaged or not what it should be."""


@dataclass(frozen=True)
class ImageStore:
    """A checked store of labelled images. Opened anew for every read, so it may be read from several threads."""

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
    """Of each split's pixels followed by its labels, as the arrays lie in memory on a little-endian machine."""

    resize: Resize = "squash"
    """What was done to the pictures, and a new one needs too."""
    kind: Literal["images"] = "images"

    # Wherever a split is named, several joined by `+` are read one after the other: `train+valid`.

    def count(self, split: str) -> int:
        """Images of a split."""
        return sum(_count_of(self, part) for part in split.split("+"))

    def images(self, split: str) -> np.ndarray:
        """All images of a split: uint8 [N, H, W, C]."""
        return self.read(split, 0, self.count(split))

    def labels(self, split: str) -> np.ndarray:
        """All labels of a split: int64 [N]."""
        self.count(split)
        return np.concatenate([_read(self.path, f"{part}/labels") for part in split.split("+")])

    def read(self, split: str, start: int, stop: int) -> np.ndarray:
        """The images of one range of a split: uint8 [stop - start, H, W, C]."""
        pieces = [np.empty((0, *self.image_shape), np.uint8)]
        for part in split.split("+"):
            count = _count_of(self, part)
            if start < count and stop > 0:
                pieces.append(_read(self.path, f"{part}/images", max(start, 0), min(stop, count)))
            start, stop = start - count, stop - count
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def require_splits(self, *splits: str) -> None:
        """Raises: StoreError: one of `splits`, or of train, valid and test if none are named, is missing."""
        for split in splits or SPLITS:
            self.count(split)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all splits and the classes' names: other data, other digest."""
        parts = [f"{split} {digest}" for split, digest in sorted(self.sha256.items())]
        return hashlib.sha256("\n".join([*parts, *self.classes]).encode()).hexdigest()

    def nbytes(self, split: str) -> int:
        """Bytes of a split's pixels when they are in memory."""
        return self.count(split) * self.image_nbytes

    @property
    def image_nbytes(self) -> int:
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def chunk_length(self) -> int:
        """Images in one compressed chunk: ranges that start and stop at its multiples are the cheapest to read."""
        return _chunk_length(self.image_nbytes)

    def verify(self) -> None:
        """Read every pixel and label.

        Raises: StoreError: a split's bytes are not those that were written.
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
    """Of each split's tokens, as the array lies in memory on a little-endian machine."""

    kind: Literal["text"] = "text"

    def tokens(self, split: str) -> np.ndarray:
        """A split's stream of token numbers: uint16 [N] or uint32 [N]."""
        _count_of(self, split)
        return _read(self.path, f"{split}/tokens")

    def verify(self) -> None:
        """Read every token.

        Raises: StoreError: a split's bytes are not those that were written.
        """
        for split in self.counts:
            digest = hashlib.sha256(self.tokens(split).data).hexdigest()
            _compare_digest(self.path, split, digest, self.sha256[split])


# --- opening ---------------------------------------------------------------------------------------------------------


def open_store(path: Path) -> ImageStore | TextStore:
    """Open a store and check that it is whole and consistent; pixels are not read.

    Raises: StoreError: all that is wrong with the file, and the cure.
    """
    with _reading(path) as file:
        problems = _header_problems(file)
        kind = file.attrs.get("kind")
        if not problems:
            problems = _image_problems(file) if kind == "images" else _text_problems(file)
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


def _header_problems(file: h5py.File) -> list[str]:
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        return ["an HDF5 file, but not a data set store of ours"]
    if attributes.get("version") != VERSION:
        return [f"store version {attributes.get('version')}, but this program reads version {VERSION}"]
    if not attributes.get("complete", False):
        return ["not finished: its writing was interrupted"]
    problems = [f"attribute '{key}' is missing" for key in ("name", "source", "licence") if key not in attributes]
    if attributes.get("kind") not in ("images", "text"):
        problems.append(f"kind is {attributes.get('kind')!r}, expected 'images' or 'text'")
    if "train" not in file:
        problems.append("it has no split 'train'")
    for split in (split for split in SPLITS if split in file):
        if not isinstance(file[split], h5py.Group):
            problems.append(f"'{split}' is not a group")
        elif "sha256" not in file[split].attrs:
            problems.append(f"{split}: attribute 'sha256' is missing")
    return problems


def _image_problems(file: h5py.File) -> list[str]:
    problems = _string_list_problems(file, "classes")
    if file.attrs.get("resize") not in get_args(Resize):
        problems.append(f"resize is {file.attrs.get('resize')!r}, expected one of {', '.join(get_args(Resize))}")
    num_classes = len(file["classes"]) if not problems else 0
    shapes = {}
    for split in (split for split in SPLITS if split in file):
        missing = [name for name in ("images", "labels") if not isinstance(file[split].get(name), h5py.Dataset)]
        if missing:
            problems.append(f"{split}: no dataset {' and no dataset '.join(missing)}")
            continue
        images, labels = file[split]["images"], file[split]["labels"]
        if images.dtype != np.uint8 or images.ndim != 4:
            problems.append(f"{split}/images is {images.dtype} with {images.ndim} axes, expected uint8 [N, H, W, C]")
        else:
            shapes[split] = images.shape[1:]
        if labels.dtype != np.int64 or labels.ndim != 1:
            problems.append(f"{split}/labels is {labels.dtype} with {labels.ndim} axes, expected int64 [N]")
        elif len(images) != len(labels):
            problems.append(f"{split} has {len(images)} images but {len(labels)} labels")
        elif len(labels) == 0:
            problems.append(f"{split} is empty")
        elif num_classes and not 0 <= labels[:].min() <= labels[:].max() < num_classes:
            problems.append(
                f"{split}/labels run from {labels[:].min()} to {labels[:].max()}, but there are {num_classes} classes"
            )
    if len(set(shapes.values())) > 1:
        problems.append(f"splits differ in image size: {_listed_shapes(shapes)}")
    for key in ("mean", "std"):
        values = np.asarray(file["train"].attrs.get(key, ()))
        if "train" in shapes and (values.shape != shapes["train"][-1:] or not np.isfinite(values).all()):
            problems.append(f"train: attribute '{key}' must hold one finite number a channel")
        elif key == "std" and not (values > 0).all():
            problems.append("train: attribute 'std' must be above 0")
    return problems


def _text_problems(file: h5py.File) -> list[str]:
    problems = _string_list_problems(file, "vocabulary")
    num_words = len(file["vocabulary"]) if not problems else 0
    for split in (split for split in SPLITS if split in file):
        tokens = file[split].get("tokens")
        if not isinstance(tokens, h5py.Dataset) or tokens.dtype not in (np.uint16, np.uint32) or tokens.ndim != 1:
            problems.append(f"{split}/tokens is not a dataset uint16 [N] or uint32 [N]")
        elif len(tokens) == 0:
            problems.append(f"{split} is empty")
        elif num_words and tokens[:].max() >= num_words:
            problems.append(f"{split}/tokens reach {tokens[:].max()}, but the vocabulary has {num_words} words")
    return problems


def _string_list_problems(file: h5py.File, name: str) -> list[str]:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
        return [f"'{name}' is not a dataset of strings"]
    return [] if len(dataset) else [f"'{name}' is empty"]


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """Open a store; whatever HDF5 says of damaged bytes becomes one line that names the file and the cure."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, PermissionError):
            raise StoreError(f"{path}: may not be read: permission denied") from error
        text = str(error)
        if "file signature not found" in text:
            raise StoreError(f"{path}: not an HDF5 file; {_CURE}") from error
        what = "cut short" if "truncated" in text else "damaged"
        raise StoreError(f"{path}: {what} ({text}); {_CURE}") from error


def _read(path: Path, dataset: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    with _reading(path) as file:
        return file[dataset][start:stop]


def _count_of(store: ImageStore | TextStore, split: str) -> int:
    if split not in store.counts:
        raise StoreError(f"{store.path}: '{store.name}' has no split '{split}'; it has {', '.join(store.counts)}")
    return store.counts[split]


def _compare_digest(path: Path, split: str, found: str, written: str) -> None:
    if found != written:
        raise StoreError(f"{path}: {split} is not as it was written (sha256 {found}, expected {written}); {_CURE}")


# --- writing ---------------------------------------------------------------------------------------------------------


def write_image_store(
    path: Path,
    *,
    name: str,
    splits: Mapping[str, ImageChunk | Iterable[ImageChunk]],
    classes: Sequence[str],
    source: str,
    licence: str,
    resize: Resize = "squash",
) -> None:
    """Write an image store, whole or not at all; equal input gives equal bytes.

    Args: splits: of each split either its images and labels, or an iterable of such chunks, read one at a time.
    Raises: StoreError: sizes differ, a split or a class of train is empty, a type or a label is wrong, or the disk is
        full.
    """
    _check_strings("classes", classes)
    _check_split_names(splits)
    with _writing(path, kind="images", name=name, source=source, licence=licence, resize=resize) as (file, sink):
        file.create_dataset("classes", data=list(classes), dtype=h5py.string_dtype("utf-8"))
        shape: tuple[int, ...] | None = None
        for split in (split for split in SPLITS if split in splits):
            chunks = splits[split]
            shape = _write_images(
                file.create_group(split),
                split=split,
                chunks=[chunks] if isinstance(chunks, tuple) else chunks,
                shape=shape,
                classes=classes,
                sink=sink,
            )


def _write_images(
    group: h5py.Group,
    *,
    split: str,
    chunks: Iterable[ImageChunk],
    shape: tuple[int, ...] | None,
    classes: Sequence[str],
    sink: _Sink,
) -> tuple[int, ...]:
    """Write one split chunk by chunk; `shape` is that of earlier splits. Returns: the images' H, W, C."""
    digest = hashlib.sha256()
    all_labels = []
    histogram: np.ndarray | None = None  # [C, 256], exact where a running mean of squares would round
    dataset: h5py.Dataset | None = None
    for images, labels in chunks:
        _check_chunk(split, images, labels, shape=shape, num_classes=len(classes))
        shape = images.shape[1:]
        if dataset is None or histogram is None:
            histogram = np.zeros((shape[2], 256), np.int64)
            dataset = group.create_dataset(
                "images",
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(_chunk_length(int(np.prod(shape))), *shape),
                dtype=np.uint8,
                compression="gzip",
                compression_opts=6,
            )
        start = len(dataset)
        dataset.resize(start + len(images), axis=0)
        dataset[start:] = images
        sink.raise_failure()
        digest.update(np.ascontiguousarray(images).data)
        all_labels.append(np.asarray(labels, "<i8"))
        for channel in range(shape[2]):
            histogram[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    if shape is None or histogram is None:
        raise StoreError(f"split '{split}' is empty")
    labels = np.concatenate(all_labels)
    digest.update(labels.data)
    group.create_dataset("labels", data=labels, chunks=(min(len(labels), CHUNK_BYTES // 8),), compression="gzip")
    group.attrs["sha256"] = digest.hexdigest()
    if split == "train":
        absent = [name for number, name in enumerate(classes) if number not in set(labels.tolist())]
        if absent:
            raise StoreError(f"train has no image of {_listed(absent)}")
        group.attrs["mean"], group.attrs["std"] = _moments(histogram)
    return shape


def _moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of pixel / 255 from counts [C, 256]; a channel that never varies gets std 1 / 255."""
    values = np.arange(256)
    count = histogram.sum(1)  # [C]
    mean = histogram @ values / count
    variance = (histogram * (values - mean[:, None]) ** 2).sum(1) / count
    return mean / 255, np.maximum(np.sqrt(variance), 1) / 255


def write_text_store(
    path: Path,
    *,
    name: str,
    splits: Mapping[str, np.ndarray],
    vocabulary: Sequence[str],
    source: str,
    licence: str,
) -> None:
    """Write a text store, whole or not at all; equal input gives equal bytes.

    Args: splits: token numbers of each split, any integer type [N].
    Raises: StoreError: a split is empty, a number is outside the vocabulary, or the disk is full.
    """
    _check_strings("vocabulary", vocabulary)
    _check_split_names(splits)
    dtype = np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32
    with _writing(path, kind="text", name=name, source=source, licence=licence) as (file, _):
        file.create_dataset(
            "vocabulary", data=list(vocabulary), dtype=h5py.string_dtype("utf-8"), chunks=True, compression="gzip"
        )
        for split in (split for split in SPLITS if split in splits):
            tokens = splits[split]
            if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                raise StoreError(f"{split}: tokens are {tokens.dtype} with {tokens.ndim} axes, expected integers [N]")
            if len(tokens) == 0:
                raise StoreError(f"split '{split}' is empty")
            if not 0 <= tokens.min() <= tokens.max() < len(vocabulary):
                raise StoreError(
                    f"{split}: tokens run from {tokens.min()} to {tokens.max()}, "
                    f"but the vocabulary has {len(vocabulary)} words"
                )
            tokens = tokens.astype(dtype)
            group = file.create_group(split)
            chunk = min(len(tokens), CHUNK_BYTES // tokens.itemsize)
            group.create_dataset("tokens", data=tokens, chunks=(chunk,), compression="gzip", compression_opts=9)
            group.attrs["sha256"] = hashlib.sha256(tokens.data).hexdigest()


@contextmanager
def _writing(path: Path, **attributes: str) -> Iterator[tuple[h5py.File, _Sink]]:
    """A new store under a temporary name, which is marked complete and renamed when the block ends well."""
    try:
        with whole_file(path) as temporary, _Sink(temporary) as sink:
            # A compressed chunk is written once only if the chunk cache can hold it until it is full.
            with h5py.File(sink, "w", rdcc_nbytes=8 * CHUNK_BYTES) as file:
                file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
                yield file, sink
                file.attrs["complete"] = True
            sink.raise_failure()
    except OSError as error:
        raise StoreError(
            f"{path}: could not be written: {error.strerror or error}; what stood there before is untouched"
        ) from error


class _Sink(io.FileIO):
    """A file that keeps its first failure to itself, to be raised later: HDF5 crashes when the disk is full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self._failure: OSError | None = None

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        with self._remembering():
            if super().write(data) < length:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return length

    def truncate(self, size: int | None = None) -> int:
        with self._remembering():
            super().truncate(size)
        return size or 0

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = self._failure or error

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _check_chunk(
    split: str, images: np.ndarray, labels: np.ndarray, *, shape: tuple[int, ...] | None, num_classes: int
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise StoreError(f"{split}: images are {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, C]")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise StoreError(f"{split}: labels are {labels.dtype} {list(labels.shape)}, expected integers [N]")
    if len(images) != len(labels):
        raise StoreError(f"{split}: {len(images)} images but {len(labels)} labels")
    if shape is not None and images.shape[1:] != shape:
        raise StoreError(
            f"images differ in size: {_shape_text(shape)} and, in {split}, {_shape_text(images.shape[1:])}; "
            "bring them to one size first (`enas data import --size`)"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise StoreError(
            f"{split}: labels run from {labels.min()} to {labels.max()}, but there are {num_classes} classes"
        )


def _check_strings(what: str, strings: Sequence[str]) -> None:
    if not strings:
        raise StoreError(f"{what} is empty")
    doubled = [string for string, count in Counter(strings).items() if count > 1]
    if doubled:
        raise StoreError(f"{what} names something twice: {_listed(doubled)}")


def _check_split_names(splits: Mapping[str, object]) -> None:
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise StoreError(f"unknown split {_listed(unknown)}; expected {', '.join(SPLITS)}")
    if "train" not in splits:
        raise StoreError("a data set needs a split 'train'")


def _chunk_length(image_nbytes: int) -> int:
    return max(1, CHUNK_BYTES // image_nbytes)


def _listed(names: Sequence[str], limit: int = 5) -> str:
    quoted = ", ".join(f"'{name}'" for name in names[:limit])
    return quoted if len(names) <= limit else f"{quoted} and {len(names) - limit} more"


def _shape_text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _listed_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{split} {_shape_text(shape)}" for split, shape in shapes.items())
