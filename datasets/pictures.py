"""One picture brought to a network's size and colours: the same when a store is made and when a model is asked."""

# H height, W width, C channels

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from datasets.store import Resize

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for one channel, luminance, and for three."""


def fit_picture(picture: Image.Image, *, size: tuple[int, int], channels: int, resize: Resize) -> np.ndarray:
    """The picture, turned upright as its EXIF data say, as uint8 [H, W, C]. size: H, W.

    Raises: what Pillow raises on a damaged file, whose pixels are read here.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        # Sixteen bits a pixel, which Pillow's own conversion would clip to white.
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
    picture = picture.convert(MODES[channels])
    width_height = (size[1], size[0])
    if resize == "squash":
        picture = picture.resize(width_height, Image.Resampling.BILINEAR)
    else:
        picture = ImageOps.fit(picture, width_height, Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(*size, channels)
