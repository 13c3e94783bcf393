"""A picture file made into a model's input, as the model's `enas.preprocess` says."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.pictures import MODES, fit_picture
from datasets.store import Resize

# H height, W width, C channels

_MAX_PIXELS = 80_000_000
# Pillow warns of large pictures a little above that limit; ours is an error already.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# What Pillow raises on a damaged file, beside its own errors.
_DAMAGES = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
_TOO_LARGE = f"too large a picture; at most {_MAX_PIXELS // 10**6} million pixels are allowed"


class ImageError(ValueError):
    """A picture file cannot be used."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a model's input."""

    resize: Resize
    height: int
    width: int
    channels: int
    """1 greyscale (a colour picture gives its luminance), 3 colour."""
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("resize", self.resize, get_args(Resize)),
            ("channels", self.channels, tuple(MODES)),
            ("interpolation", self.interpolation, ("bilinear",)),
        ):
            if value not in allowed:
                raise ImageError(f"{name} is {value!r}, but must be one of {', '.join(map(str, allowed))}")
        for name, size in (("height", self.height), ("width", self.width)):
            if not isinstance(size, int) or size < 1:
                raise ImageError(f"{name} is {size!r}, but must be a whole number above 0")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocess:
        """Raises: ImageError: a key is missing, unknown, or has a value that is not allowed."""
        try:
            return cls(**document)
        except TypeError as error:
            raise ImageError(str(error).replace("Preprocess.__init__() ", "")) from error


def prepare(path: Path, *, preprocess: Preprocess) -> np.ndarray:
    """The PNG or JPEG file at `path` as [H, W, C] uint8.

    Raises: ImageError: not such a file, damaged, or of more than 80 million pixels.
    """
    return _prepare(path, name=str(path), preprocess=preprocess)


def prepare_bytes(data: bytes, *, preprocess: Preprocess) -> np.ndarray:
    """The bytes of a PNG or JPEG file as [H, W, C] uint8. Raises: ImageError: as `prepare`."""
    return _prepare(BytesIO(data), name="the picture", preprocess=preprocess)


def _prepare(source: Path | IO[bytes], *, name: str, preprocess: Preprocess) -> np.ndarray:
    try:
        with Image.open(source, formats=("PNG", "JPEG")) as picture:
            # The header is read, the pixels are not: a small file may unfold to more than the memory holds.
            if picture.width * picture.height > _MAX_PIXELS:
                raise ImageError(f"{name}: {_TOO_LARGE}")
            return fit_picture(
                picture,
                size=(preprocess.height, preprocess.width),
                channels=preprocess.channels,
                resize=preprocess.resize,
            )
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a PNG or JPEG picture") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: {_TOO_LARGE}") from None
    except ImageError:
        raise
    except _DAMAGES as error:
        raise ImageError(f"{name}: cannot be read: {error}") from error
