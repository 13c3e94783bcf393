"""Exports a store as plain files: a folder of pictures with their labels, or of texts.

Importing the folder gives the same data again, with the classes ordered by name; the files do not record how pictures
were resized.

FOLDER/<split>/<class>/<number>.png, FOLDER/metadata.csv      images
FOLDER/<split>.txt                                            text, which gives the same tokens again
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from datasets.store import ImageStore, StoreError, TextStore
from datasets.tokens import detokenize
from foundation.files import whole_folder
from foundation.parallel import in_order

_TABLE = "metadata.csv"


def export(store: ImageStore | TextStore, folder: Path, *, on_step: Callable[[], object] = lambda: None) -> None:
    """Write the folder atomically. on_step: called once per image.

    Raises: StoreError: the path exists already, the store is damaged, or the disk is full.
    """
    with _new_folder(folder) as temporary:
        if isinstance(store, TextStore):
            for split in store.counts:
                words = (store.vocabulary[number] for number in store.stream(split).tolist())
                text = detokenize(words, tokens=store.tokens)
                (temporary / f"{split}.txt").write_text(text, encoding="utf-8", newline="")
        else:
            _export_images(store, temporary, on_step=on_step)


def _export_images(store: ImageStore, folder: Path, *, on_step: Callable[[], object]) -> None:
    places = [_folder_name(name) for name in store.classes]
    with open(folder / _TABLE, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file_name", "label"])
        for split, count in store.counts.items():
            for place in places:
                (folder / split / place).mkdir(parents=True)
            digits = len(str(count - 1))
            names = [
                f"{split}/{places[label]}/{number:0{digits}}.png"
                for number, label in enumerate(store.labels(split).tolist())
            ]
            for name, label in zip(names, store.labels(split).tolist(), strict=True):
                table.writerow([name, store.classes[label]])
            for _ in in_order(partial(_save, folder), zip(names, _images(store, split), strict=True)):
                on_step()


def _images(store: ImageStore, split: str) -> Iterator[np.ndarray]:
    """Each image uint8 [H, W, C]."""
    for start in range(0, store.counts[split], store.chunk_length):
        yield from store.read(split, start, start + store.chunk_length)


def _save(folder: Path, item: tuple[str, np.ndarray]) -> None:
    name, image = item
    pixels = image[..., 0] if image.shape[-1] == 1 else image  # one channel is [H, W] to Pillow
    Image.fromarray(pixels).save(folder / name)


def _folder_name(class_name: str) -> str:
    """Returns a folder name that every file system accepts, different for different classes: `a/b` gives `a%2Fb`."""
    kept = "".join(c if c.isprintable() and c not in '/\\:*?"<>|%' else quote(c, safe="") for c in class_name)
    return f"%2E{kept[1:]}" if kept.startswith(".") else kept or "%"


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder; renames it to `folder` if the block succeeds, else removes it."""
    if folder.exists():
        raise StoreError(f"{folder}: is there already; give a name that is free")
    try:
        with whole_folder(folder) as temporary:
            yield temporary
    except OSError as error:
        raise StoreError(f"{folder}: could not be written: {error.strerror or error}") from error
