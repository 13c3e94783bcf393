"""Prepares a picture file as a model's input, as the model's `enas.preprocess` specifies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args

from foundation.pictures import MODES, Picture, Resize, read_picture

# H height, W width, C channels


PIXELS = {
    "version": 1,
    "orientation": "the EXIF orientation is applied",
    "transparency": "pasted on white",
    "order": "RGB",
    "luminance": "ITU-R 601: (19595 R + 38470 G + 7471 B + 32768) >> 16",
    "filter": "triangle over two pixels of the coarser side, antialiased: Pillow's BILINEAR",
    "rounding": "weights to 22 bits; pixels to 8 bits after the width, and again after the height",
}
"""How pictures are decoded and resized; an exported model states it as `enas.pixels`, beside `enas.preprocess`.

A runtime ignores keys that it does not know. Changing a step needs a new version, which older runtimes refuse.
"""


class ImageError(ValueError):
    """Pictures cannot be prepared as a model's file specifies, or there are none."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a model's input."""

    resize: Resize
    height: int
    width: int
    channels: int
    """1 greyscale (a colour picture is converted to its luminance), 3 colour."""
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
        """Read a model's `enas.preprocess`; unknown keys are ignored.

        Raises: ImageError: keys are missing, or one has a value that is not allowed.
        """
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in document]
        if missing:
            raise ImageError(f"it has no {', '.join(missing)}")
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


def check_pixels(document: object) -> None:
    """Check that this runtime prepares pictures as the model's `enas.pixels` specifies.

    Args: document: the entry; None if the model has none, which is accepted.
    Raises: ImageError: its version is newer than this runtime's, or it has no version.
    """
    match document:
        case None:
            return
        case {"version": int(version)} if version <= PIXELS["version"]:  # type: ignore[operator]
            return
        case {"version": int(version)}:
            raise ImageError(f"version {version} is of a newer enas-toolchain; this one knows {PIXELS['version']}")
    raise ImageError("it has no version")


def prepare_file(data: bytes, *, preprocess: Preprocess) -> Picture:
    """Decode a picture file and resize it to the model's input, with any remark. Raises: PictureError."""
    size = (preprocess.height, preprocess.width)
    return read_picture(data, size=size, channels=preprocess.channels, resize=preprocess.resize)
