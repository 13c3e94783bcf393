"""A store from a person's own folder of pictures, one sub-folder a class.

    FOLDER/<class>/**                     each split but train takes a tenth, by class and seed
    FOLDER/{train,valid,test}/<class>/**  kept as they are; a split that has no folder takes a tenth of train

Files with the same bytes never come apart. Two passes: the first reads every file's header and digest, the second its
pixels, a chunk at a time, straight into the store.
"""

# n pictures of a chunk, H W C an image

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.pictures import fit_picture
from datasets.seeds import numpy_generator
from datasets.splits import stratified_split
from datasets.store import CHUNK_BYTES, SPLITS, Resize, StoreError
from datasets.store_writer import ImageChunk, write_image_store

_HELD_OUT_FRACTION = 0.1
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass
class ImportReport:
    """What an import did, for the person to read."""

    counts: dict[str, int] = field(default_factory=dict)
    """Images written of each split."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Files left out, each with the reason."""
    leaked: list[tuple[Path, Path]] = field(default_factory=list)
    """Files of one given split whose bytes stand in an earlier one too."""


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: int
    digest: str
    size: tuple[int, int]
    """H, W, upright."""
    is_grey: bool


def build(
    folder: Path,
    path: Path,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    channels: Literal[1, 3] | None = None,
    seed: int = 0,
    on_picture: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Write the image store at `path` from the pictures under `folder`.

    Args: size: H, W of every image; by default the pictures' own, which must then be equal.
        channels: 1 or 3; by default 1 if every picture is grey, else 3.
        on_picture: called twice a file, once a pass.
    Raises: StoreError: no classes, a class without a picture, mixed sizes, or most files unreadable.
    """
    report = ImportReport()
    given, classes = _scan(folder)
    pictures = {split: _inspect(files, report=report, on_picture=on_picture) for split, files in given.items()}
    num_files = sum(map(len, given.values()))
    _check_readable(folder, report, num_files)
    _check_classes(pictures, classes)
    report.leaked = _leaks(pictures)
    pictures = _mixed(_fill_missing_splits(pictures, seed=seed), seed=seed)
    everything = [picture for split in pictures.values() for picture in split]
    size = size or _common_size(everything)
    channels = channels or (1 if all(picture.is_grey for picture in everything) else 3)

    def chunks(split: str) -> Iterator[ImageChunk]:
        report.counts[split] = 0
        length = max(1, CHUNK_BYTES // (size[0] * size[1] * channels))
        for start in range(0, len(pictures[split]), length):
            part = pictures[split][start : start + length]
            images, labels = _read_pixels(
                part, size=size, resize=resize, channels=channels, report=report, on_picture=on_picture
            )
            report.counts[split] += len(labels)
            if len(labels):
                yield images, labels
        _check_readable(folder, report, num_files)

    write_image_store(
        path,
        name=name,
        splits={split: chunks(split) for split in pictures},
        classes=classes,
        source=f"imported from the folder '{folder.resolve().name}'",
        licence="as the pictures' owner says",
        resize=resize,
    )
    return report


def count_files(folder: Path) -> int:
    """Files that `build` will look at.

    Raises: StoreError: the folder has no class folders.
    """
    given, _ = _scan(folder)
    return sum(map(len, given.values()))


# --- first pass: what there is ---------------------------------------------------------------------------------------


def _scan(folder: Path) -> tuple[dict[str, list[tuple[Path, int]]], list[str]]:
    """Files of each given split with their labels, and the class names; a folder without split folders is all train."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder")
    top = _sub_folders(folder)
    given = [split for split in SPLITS if folder / split in top]
    if given and "train" not in given:
        raise StoreError(f"{folder}: has a folder '{given[0]}' but no folder 'train'")
    beside = [path.name for path in top if path.name not in SPLITS]
    if given and beside:
        raise StoreError(
            f"{folder}: folders of splits ({', '.join(given)}) and others beside them ({', '.join(beside[:5])}); "
            "expected either one folder a class, or train, valid and test with one folder a class inside each"
        )
    roots = {split: folder / split for split in given} or {"train": folder}
    classes = [path.name for path in _sub_folders(roots["train"])]
    if len(classes) < 2:
        raise StoreError(f"{roots['train']}: {len(classes)} class folders, expected one for each of at least 2 classes")
    files: dict[str, list[tuple[Path, int]]] = {}
    for split, root in roots.items():
        strange = [path.name for path in _sub_folders(root) if path.name not in classes]
        if strange:
            raise StoreError(f"{root}: classes that train does not have: {', '.join(strange[:5])}")
        files[split] = [(path, label) for label, name in enumerate(classes) for path in _files_below(root / name)]
    return files, classes


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files_below(folder: Path) -> list[Path]:
    """Every file that is not hidden: one that is no picture is reported, not passed over."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _inspect(
    files: Sequence[tuple[Path, int]], *, report: ImportReport, on_picture: Callable[[], None]
) -> list[_Picture]:
    pictures = []
    for path, label in files:
        on_picture()
        try:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
                size = (image.width, image.height) if turned else (image.height, image.width)
                pictures.append(
                    _Picture(path, label, hashlib.sha256(data).hexdigest(), size, image.mode in _GREY_MODES)
                )
        except _UNREADABLE as error:
            report.unreadable.append((path, _reason(error)))
    return pictures


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
    """Every split in random order: a store too large for memory is read by chunks, which should hold all classes."""
    return {
        split: [members[number] for number in numpy_generator(seed, "mix", split).permutation(len(members)).tolist()]
        for split, members in pictures.items()
    }


def _leaks(given: dict[str, list[_Picture]]) -> list[tuple[Path, Path]]:
    """Pictures of a given split whose bytes stand in an earlier split too, with the earlier one."""
    leaks = []
    seen: dict[str, Path] = {}
    for pictures in given.values():
        leaks += [(picture.path, seen[picture.digest]) for picture in pictures if picture.digest in seen]
        seen |= {picture.digest: picture.path for picture in pictures}
    return leaks


def _common_size(pictures: Sequence[_Picture]) -> tuple[int, int]:
    first = pictures[0]
    for picture in pictures:
        if picture.size != first.size:
            raise StoreError(
                f"pictures differ in size: {first.path} is {first.size[0]}×{first.size[1]}, "
                f"{picture.path} is {picture.size[0]}×{picture.size[1]}; "
                "give the size of all with --size, for example --size 32 (--fit crop keeps proportions)"
            )
    return first.size


def _check_classes(pictures: dict[str, list[_Picture]], classes: Sequence[str]) -> None:
    for split, members in pictures.items():
        labels = {picture.label for picture in members}
        empty = [name for label, name in enumerate(classes) if label not in labels]
        if empty:
            raise StoreError(f"{split}: class {_quoted(empty)} has no image that can be read")


def _check_readable(folder: Path, report: ImportReport, num_files: int) -> None:
    unreadable = report.unreadable
    if 2 * len(unreadable) > num_files:
        path, reason = unreadable[0]
        raise StoreError(
            f"{folder}: {len(unreadable)} of {num_files} files cannot be read as pictures (first: {path}: {reason})"
        )


# --- second pass: pixels ---------------------------------------------------------------------------------------------

# Damaged files make Pillow's decoders raise any of these.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def _read_pixels(
    pictures: Sequence[_Picture],
    *,
    size: tuple[int, int],
    resize: Resize,
    channels: int,
    report: ImportReport,
    on_picture: Callable[[], None],
) -> ImageChunk:
    """Images uint8 [n, H, W, C] and labels [n] of those pictures that can be decoded."""
    images, labels = [], []
    for picture in pictures:
        on_picture()
        try:
            images.append(_decode(picture.path, size=size, resize=resize, channels=channels))
            labels.append(picture.label)
        except _UNREADABLE as error:
            report.unreadable.append((picture.path, _reason(error)))
    return np.array(images, np.uint8).reshape(-1, *size, channels), np.array(labels, np.int64)


def _decode(path: Path, *, size: tuple[int, int], resize: Resize, channels: int) -> np.ndarray:
    """One picture uint8 [H, W, C], upright, in the size wanted."""
    with Image.open(path) as file:
        return fit_picture(file, size=size, channels=channels, resize=resize)


def _reason(error: Exception) -> str:
    text = str(error)
    return "not a picture" if "cannot identify image file" in text else text or type(error).__name__


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
