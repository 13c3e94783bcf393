"""Writes data set stores atomically; equal input gives equal bytes. `store.py` describes the layout."""

# N images or tokens of a split, H W C of an image

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from datasets.claims import DeferredSignals
from datasets.store import CHUNK_BYTES, StoreError, chunk_length_of
from datasets.store_format import FORMAT, SPLITS, VERSION
from datasets.tokens import Tokens
from foundation.files import whole_file
from foundation.pictures import Resize
from foundation.text import listed, shape_text

ImageChunk: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images uint8 [n, H, W, C] and their labels int64 [n]."""


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
    """Write an image store atomically; equal input gives equal bytes.

    Args: splits: for each split either its images and labels, or an iterable of such chunks, read one at a time.
    Raises: StoreError: sizes differ, a split or a class of train is empty, a type or a label is wrong, or the disk is
        full.
    """
    _check_strings("classes", classes)
    _check_split_names(splits)
    with _writing(path, kind="images", name=name, source=source, licence=licence, resize=resize) as writing:
        file, sink, signals = writing
        file.create_dataset("classes", data=list(classes), dtype=h5py.string_dtype("utf-8"))
        shape: tuple[int, ...] | None = None
        for split in (split for split in SPLITS if split in splits):
            chunks = splits[split]
            shape = _write_images(
                file.create_group(split),
                split=split,
                chunks=signals.handled_between([chunks] if isinstance(chunks, tuple) else chunks),
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
    """Write one split chunk by chunk. shape: H, W, C in earlier splits. Returns: the images' H, W, C."""
    digest = hashlib.sha256()
    all_labels = []
    histogram: np.ndarray | None = None  # [C, 256]; exact, while a running mean of squares would round
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
                chunks=(chunk_length_of(int(np.prod(shape))), *shape),
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
        present = set(labels.tolist())
        absent = [name for number, name in enumerate(classes) if number not in present]
        if absent:
            raise StoreError(f"train has no image of {listed(absent)}")
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
    tokens: Tokens = "word",
) -> None:
    """Write a text store atomically; equal input gives equal bytes.

    Args: splits: token numbers of each split, any integer type [N]. tokens: the kind of token.
    Raises: StoreError: a split is empty, a number is outside the vocabulary, or the disk is full.
    """
    _check_strings("vocabulary", vocabulary)
    _check_split_names(splits)
    dtype = np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32
    with _writing(path, kind="text", name=name, source=source, licence=licence, tokens=tokens) as (file, _, _):
        file.create_dataset(
            "vocabulary", data=list(vocabulary), dtype=h5py.string_dtype("utf-8"), chunks=True, compression="gzip"
        )
        for split in (split for split in SPLITS if split in splits):
            stream = splits[split]
            if stream.ndim != 1 or stream.dtype.kind not in "iu":
                raise StoreError(f"{split}: tokens are {stream.dtype} with {stream.ndim} axes, expected integers [N]")
            if len(stream) == 0:
                raise StoreError(f"split '{split}' is empty")
            if not 0 <= stream.min() <= stream.max() < len(vocabulary):
                raise StoreError(
                    f"{split}: tokens run from {stream.min()} to {stream.max()}, "
                    f"but the vocabulary has {len(vocabulary)} words"
                )
            stream = stream.astype(dtype)
            group = file.create_group(split)
            chunk = min(len(stream), CHUNK_BYTES // stream.itemsize)
            group.create_dataset("tokens", data=stream, chunks=(chunk,), compression="gzip", compression_opts=9)
            group.attrs["sha256"] = hashlib.sha256(stream.data).hexdigest()


@contextmanager
def _writing(path: Path, **attributes: str) -> Iterator[tuple[h5py.File, _Sink, DeferredSignals]]:
    """Yields a new store under a temporary name; marks it complete and renames it if the block succeeds."""
    try:
        with whole_file(path) as temporary, DeferredSignals() as signals, _Sink(temporary) as sink:
            # A compressed chunk is written once only if the chunk cache can hold it until it is full.
            with h5py.File(sink, "w", rdcc_nbytes=8 * CHUNK_BYTES) as file:
                file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
                yield file, sink, signals
                file.attrs["complete"] = True
            sink.raise_failure()
    except OSError as error:
        raise StoreError(
            f"{path}: could not be written: {error.strerror or error}; what stood there before is untouched"
        ) from error


class _Sink(io.FileIO):
    """A file that stores its first failure, to be raised later: HDF5 crashes if a write raises on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self._failure: BaseException | None = None

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
        # KeyboardInterrupt too: HDF5 cannot propagate it.
        except BaseException as error:
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
            f"images differ in size: {shape_text(shape)} and, in {split}, {shape_text(images.shape[1:])}; "
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
        raise StoreError(f"{what} names something twice: {listed(doubled)}")


def _check_split_names(splits: Mapping[str, object]) -> None:
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise StoreError(f"unknown split {listed(unknown)}; expected {', '.join(SPLITS)}")
    if "train" not in splits:
        raise StoreError("a data set needs a split 'train'")
