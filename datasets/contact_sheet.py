"""A few images of each class on one sheet, for a person to see what a network will see."""

# K classes, H W C an image

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.store import ImageStore
from foundation.text import printable

_SMALLEST, _LARGEST = 64, 128
"""Pixels of a tile's longer side: small images are enlarged by whole factors, so that their pixels are seen."""
_GAP, _FONT_SIZE, _LONGEST_NAME = 6, 16, 24
_BACKGROUND, _INK = "#808080", "white"
"""Grey, beside which both black and white borders show."""


def contact_sheet(store: ImageStore, split: str, *, num_columns: int, max_classes: int = 100) -> Image.Image:
    """One row for each class with images in the split, under its name: its first images, as many as columns.

    Raises: StoreError: the store has no such split, or is damaged.
    """
    labels = store.labels(split)
    counts = np.bincount(labels, minlength=len(store.classes))  # [K]
    shown = np.flatnonzero(counts)[:max_classes]
    numbers = {label: np.flatnonzero(labels == label)[:num_columns] for label in shown.tolist()}
    images = images_at(store, split, np.concatenate(list(numbers.values())))
    rows = [
        (f"{short_name(store.classes[label])}  {counts[label]:,}", [images[number] for number in found.tolist()])
        for label, found in numbers.items()
    ]
    return draw_rows(rows, image_shape=store.image_shape)


def draw_rows(rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, image_shape: tuple[int, int, int]) -> Image.Image:
    """A sheet of images uint8 [H, W, C], each row under its title."""
    width, height = _tile_size(image_shape)
    font = ImageFont.load_default(_FONT_SIZE)
    line = _FONT_SIZE + _GAP
    num_columns = max(len(images) for _, images in rows)
    size = (_GAP + num_columns * (width + _GAP), _GAP + len(rows) * (line + height + _GAP))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for row, (title, images) in enumerate(rows):
        top = _GAP + row * (line + height + _GAP)
        draw.text((_GAP, top), title, fill=_INK, font=font)
        for column, image in enumerate(images):
            tile = Image.fromarray(image.squeeze()).convert("RGB")
            resample = Image.Resampling.NEAREST if width >= tile.width else Image.Resampling.BILINEAR
            sheet.paste(tile.resize((width, height), resample), (_GAP + column * (width + _GAP), top + line))
    return sheet


def images_at(store: ImageStore, split: str, numbers: np.ndarray) -> dict[int, np.ndarray]:
    """The images at those numbers, by number; each of the file's chunks is read once."""
    images: dict[int, np.ndarray] = {}
    for chunk in np.unique(numbers // store.chunk_length).tolist():
        start = chunk * store.chunk_length
        pixels = store.read(split, start, start + store.chunk_length)
        inside = numbers[numbers // store.chunk_length == chunk]
        images |= {number: pixels[number - start] for number in inside.tolist()}
    return images


def short_name(name: str) -> str:
    """A class's name as a sheet shows it."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _tile_size(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Width, height."""
    height, width, _ = image_shape
    longer = max(height, width)
    scale = -(-_SMALLEST // longer) if longer < _SMALLEST else min(1.0, _LARGEST / longer)
    return max(1, round(width * scale)), max(1, round(height * scale))
