"""A store from a user's own pictures: folders of classes, a ZIP archive of them, or a table of paths and labels.

A missing split takes a tenth of train, by class and seed; files with the same bytes stay together. There are two
passes, each with one thread or process per core: the first reads the header and digest of every file, the second
decodes the pixels chunk by chunk into the store. So at most one picture per worker is being decoded at a time.
"""

# n pictures of a chunk, H W C an image

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.sources.class_folders import Labelled, labelled_by_folders
from datasets.sources.import_report import ImportReport, Looks, doubts, lacking
from datasets.sources.picture_table import (
    SUFFIXES,
    ColumnError,
    Columns,
    find_tables,
    labelled_by_table,
    labelled_by_tables,
)
from datasets.splits import stratified_split
from datasets.store import CHUNK_BYTES, StoreError
from datasets.store_format import SPLITS
from datasets.store_writer import ImageChunk, write_image_store
from foundation import parallel
from foundation.file_tree import File, Problem, TreeError, read_tree
from foundation.limits import MAX_STORED_PIXELS
from foundation.parallel import Workers, in_order
from foundation.pictures import PictureError, Resize, read_header, read_picture
from foundation.seeds import numpy_generator
from foundation.text import listed, printable

_HELD_OUT_FRACTION = 0.1
_LARGEST_SIDE = 256
"""Pixels per side; larger images are accepted only with --size, because training needs much memory for them."""
_FILES_FOR_PROCESSES = 5_000
"""From this number of files on, processes are worth their start-up time: almost all of the 0.4 ms that a small picture
takes in the two passes is Python code, which threads run one after the other."""


@dataclass(frozen=True)
class _Picture:
    file: File
    label: int
    digest: str
    size: tuple[int, int]
    """H, W, upright."""
    is_grey: bool


def build(
    source: Path,
    path: Path,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    channels: Literal[1, 3] | None = None,
    seed: int = 0,
    columns: Columns | None = None,
    as_classes: bool = False,
    on_start: Callable[[int], object] = lambda total: None,
    on_picture: Callable[[], object] = lambda: None,
) -> ImportReport:
    """Write the image store at `path` from the pictures of a folder, a ZIP archive or a table.

    Args: size: H, W of every image; by default the pictures' own, which must then be equal.
        channels: 1 or 3; by default 1 if every picture is grey, else 3.
        columns: of a table; by default found by their usual names. as_classes: always take the folders as classes.
        on_start: receives the maximum number of calls of `on_picture`: two for each file, one in each pass.
    Raises: StoreError: no classes, a class without pictures in train, mixed sizes, or most files unreadable.
    """
    report = ImportReport()
    labelled = find_pictures(source, report.passed_over, columns=columns, as_classes=as_classes)
    classes = labelled.classes
    num_files = sum(map(len, labelled.given.values()))
    on_start(2 * num_files)
    with _workers(source, num_files) as workers:
        given = {
            split: list(_inspect(files, workers, unreadable=report.unreadable, on_picture=on_picture))
            for split, files in labelled.given.items()
        }
        _check_readable(source, report.unreadable, num_files)
        for split, members in given.items():
            _check_labels(split, [picture.label for picture in members], classes)
        _note_copies(report, given, classes)
        pictures = _mixed(_fill_missing_splits(given, seed=seed), seed=seed)
        everything = [picture for split in pictures.values() for picture in split]
        size = _checked(size or _common_size(everything))
        channels = channels or (1 if all(picture.is_grey for picture in everything) else 3)
        looks: dict[int, Looks] = defaultdict(Looks)
        written: dict[str, list[int]] = {split: [] for split in pictures}  # labels; pixels can be unreadable

        def chunks(split: str) -> Iterator[ImageChunk]:
            length = max(1, CHUNK_BYTES // (size[0] * size[1] * channels))
            members = pictures[split]
            decode = partial(_decode, size=size, channels=channels, resize=resize)
            decoded = zip(members, in_order(decode, members, workers=workers, most_at_once=length), strict=True)
            for start in range(0, len(members), length):
                images, labels = [], []
                for _, (picture, (pixels, reason)) in zip(members[start : start + length], decoded, strict=False):
                    on_picture()
                    if pixels is None:
                        report.unreadable.append((picture.file.path, reason or ""))
                        continue
                    if reason:
                        report.remarks.append((picture.file.path, reason))
                    images.append(pixels)
                    labels.append(picture.label)
                    looks[picture.label].add(pixels)
                written[split] += labels
                if labels:
                    yield np.stack(images), np.array(labels, np.int64)
            _check_readable(source, report.unreadable, num_files)
            _check_labels(split, written[split], classes)

        write_image_store(
            path,
            name=name,
            splits={split: chunks(split) for split in pictures},
            classes=classes,
            source=f"imported from '{printable(source.resolve().name)}'",
            licence="as the pictures' owner says",
            resize=resize,
        )
    report.counts = {split: len(labels) for split, labels in written.items()}
    report.doubtful = lacking(written, classes) + doubts(looks, classes)
    return report


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the size. Raises: StoreError: images of that size need too much memory."""
    if math.prod(size) > MAX_STORED_PIXELS:
        raise StoreError(
            f"images of {size[0]}×{size[1]} have {math.prod(size):,} pixels, {MAX_STORED_PIXELS:,} at most are stored; "
            "bring them to a smaller size with --size"
        )
    return size


def find_pictures(
    source: Path, problems: list[Problem], *, columns: Columns | None = None, as_classes: bool = False
) -> Labelled:
    """Returns the files of a folder, a ZIP archive or a table, with their classes. problems: receives skipped files.

    Raises: StoreError: it has none of these forms, two tables belong to one split, or columns are given without a
        table.
    """
    if source.suffix.lower() in SUFFIXES and not source.is_dir():
        return labelled_by_table(source, columns=columns)
    try:
        root = read_tree(source, problems)
    except TreeError as error:
        raise StoreError(str(error)) from error
    if not as_classes and (tables := find_tables(root)):
        try:
            return labelled_by_tables(root, tables, problems, columns=columns)
        except ColumnError as error:
            raise StoreError(f"{error}; or take the folders as classes with --as-classes") from None
    if columns:
        raise StoreError(f"--columns is for a table, but {source} has none: its folders are taken as classes")
    return labelled_by_folders(root, problems, as_classes=as_classes)


@contextmanager
def _workers(source: Path, num_files: int) -> Iterator[Workers]:
    """Yields processes for very many files, else threads; files of an open archive cannot be passed to a process.

    Raises: StoreError: a process was killed, as happens when memory runs out.
    """
    is_archive = source.is_file() and source.suffix.lower() not in SUFFIXES
    kind = parallel.thread_pool if is_archive or num_files < _FILES_FOR_PROCESSES else parallel.process_pool
    try:
        with kind() as workers:
            yield workers
    except BrokenExecutor as error:
        raise StoreError(
            f"{printable(str(source))}: a process that was reading pictures has been killed; was the memory used up?"
        ) from error


# --- first pass: headers and digests ---------------------------------------------------------------------------------


def _inspect(
    files: Sequence[tuple[File, int]],
    workers: Workers,
    *,
    unreadable: list[Problem],
    on_picture: Callable[[], object],
) -> Iterator[_Picture]:
    inspected = in_order(_inspected, files, workers=workers)
    for (file, _), found in zip(files, inspected, strict=True):
        on_picture()
        if isinstance(found, _Picture):
            yield found
        else:
            unreadable.append((file.path, found))


def _inspected(item: tuple[File, int]) -> _Picture | str:
    """Returns the picture that a file's header describes, or the reason why the file is not a picture."""
    file, label = item
    try:
        data = file.read()
        header = read_header(data)
    except PictureError as error:
        return str(error)
    return _Picture(file, label, hashlib.sha256(data).hexdigest(), header.size, header.is_grey)


def _fill_missing_splits(given: dict[str, list[_Picture]], *, seed: int) -> dict[str, list[_Picture]]:
    """Take a tenth of train, by class, for each split that was not given; in the order of SPLITS."""
    missing = [split for split in SPLITS if split not in given]
    if not missing:
        return given
    train = given["train"]
    _, groups = np.unique([picture.digest for picture in train], return_inverse=True)
    parts = stratified_split(
        np.array([picture.label for picture in train]),
        fractions={"train": 1 - _HELD_OUT_FRACTION * len(missing)} | dict.fromkeys(missing, _HELD_OUT_FRACTION),
        seed=seed,
        groups=groups,
    )
    for split, rows in parts.items():
        if len(rows) == 0:
            raise StoreError(
                f"too few pictures to take a split '{split}' from: "
                f"every class has fewer than {len(parts)} different ones"
            )
    taken = {split: [train[row] for row in rows.tolist()] for split, rows in parts.items()}
    return {split: taken.get(split, given.get(split, [])) for split in SPLITS}


def _mixed(pictures: dict[str, list[_Picture]], *, seed: int) -> dict[str, list[_Picture]]:
    """Shuffles every split: a store too large for memory is read in chunks, and each should contain all classes."""
    return {
        split: [members[number] for number in numpy_generator(seed, "mix", split).permutation(len(members)).tolist()]
        for split, members in pictures.items()
    }


def _note_copies(report: ImportReport, given: dict[str, list[_Picture]], classes: Sequence[str]) -> None:
    """Report files with equal bytes: as copies, under several labels, and in several of the given splits."""
    groups: dict[str, list[tuple[str, _Picture]]] = defaultdict(list)
    for split, pictures in given.items():
        for picture in pictures:
            groups[picture.digest].append((split, picture))
    for group in groups.values():
        if len(group) < 2:
            continue
        labels = {picture.label for _, picture in group}
        if len(labels) > 1:
            report.two_labels.append([f"{p.file.path} ('{printable(classes[p.label])}')" for _, p in group])
        report.copies.append([picture.file.path for _, picture in group])
        first_split, first = group[0]
        report.leaked += [(picture.file.path, first.file.path) for split, picture in group if split != first_split]


def _common_size(pictures: Sequence[_Picture]) -> tuple[int, int]:
    first = pictures[0]
    for picture in pictures:
        if picture.size != first.size:
            raise StoreError(
                f"pictures differ in size: {printable(first.file.path)} is {first.size[0]}×{first.size[1]}, "
                f"{printable(picture.file.path)} is {picture.size[0]}×{picture.size[1]}; "
                "give the size of all with --size, for example --size 32 (--fit crop keeps proportions)"
            )
    height, width = first.size
    if max(first.size) > _LARGEST_SIDE:
        raise StoreError(
            f"the pictures are {height}×{width}, which is much to train on; give a size, for example --size 64, "
            f"or --size {height}x{width} to keep them as they are (--fit crop keeps proportions)"
        )
    return first.size


def _check_labels(split: str, labels: Sequence[int], classes: Sequence[str]) -> None:
    """Raises: StoreError: the split has no picture, or train lacks a class; the report lists what other splits lack."""
    empty = sorted(set(range(len(classes))).difference(labels))
    if split == "train" and empty:
        raise StoreError(f"train: class {listed([classes[label] for label in empty])} has no image that can be read")
    if not labels:
        raise StoreError(f"{split}: has no image that can be read")


def _check_readable(source: Path, unreadable: Sequence[Problem], num_files: int) -> None:
    if 2 * len(unreadable) > num_files:
        path, reason = unreadable[0]
        raise StoreError(
            f"{printable(str(source))}: {len(unreadable)} of {num_files} files cannot be read as pictures "
            f"(first: {printable(path)}: {reason})"
        )


# --- second pass: pixels ---------------------------------------------------------------------------------------------


def _decode(
    picture: _Picture, *, size: tuple[int, int], channels: int, resize: Resize
) -> tuple[np.ndarray | None, str | None]:
    """Returns the image uint8 [H, W, C] and a remark or None; if it cannot be read, None and the reason."""
    try:
        decoded = read_picture(picture.file.read(), size=size, channels=channels, resize=resize)
    except PictureError as error:
        return None, str(error)
    return decoded.pixels, decoded.remark
