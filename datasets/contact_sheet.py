"""A sheet with a few images of each class, which shows what a network will see."""

# K classes, H W C an image

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.store import ImageStore
from foundation.text import printable

_SMALLEST, _LARGEST = 64, 128
"""Bounds of a tile's longer side, pixels: small images are enlarged by whole factors, so that pixels are visible."""
_GAP, _FONT_SIZE, _LONGEST_NAME = 6, 16, 24
_BACKGROUND, _INK = "#808080", "white"
"""Grey, on which both black and white borders are visible."""


def contact_sheet(store: ImageStore, split: str, *, num_columns: int, max_classes: int = 100) -> Image.Image:
    """Draws a row for each class with images in the split: its name, and below it its first `num_columns` images.

    Raises: StoreError: the store has no such split, or is damaged.
    """
    labels = store.labels(split)
    counts = np.bincount(labels, minlength=len(store.classes))  # [K]
    shown = np.flatnonzero(counts)[:max_classes]
    numbers = [np.flatnonzero(labels == label)[:num_columns] for label in shown.tolist()]
    images = iter(store.take(split, np.concatenate(numbers)))
    rows = [
        (f"{short_name(store.classes[label])}  {counts[label]:,}", list(islice(images, len(found))))
        for label, found in zip(shown.tolist(), numbers, strict=True)
    ]
    return draw_rows(rows, image_shape=store.image_shape)


def draw_rows(rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, image_shape: tuple[int, int, int]) -> Image.Image:
    """Draws a sheet of images uint8 [H, W, C], each row below its title."""
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
            pixels = image[..., 0] if image.shape[-1] == 1 else image  # one channel is [H, W] to Pillow
            tile = Image.fromarray(pixels).convert("RGB")
            resample = Image.Resampling.NEAREST if width >= tile.width else Image.Resampling.BILINEAR
            sheet.paste(tile.resize((width, height), resample), (_GAP + column * (width + _GAP), top + line))
    return sheet


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
