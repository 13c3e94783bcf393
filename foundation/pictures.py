"""Decodes picture files, with one list of formats, one decoder and one size limit wherever a picture is read.

A store and the model trained on it must see the same pixels, so import, prediction and serving all use this module.
Every error of a decoder becomes a `PictureError` with a reason that a user can act on.
"""

# H height, W width, C channels

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from foundation import deep_colours, depth
from foundation.limits import MAX_FILE_BYTES, MAX_PIXELS
from foundation.metadata import without_metadata

_Read = TypeVar("_Read")

Resize: TypeAlias = Literal["squash", "center_crop"]
"""How a picture is resized for a network: `squash` resizes all of it and changes its proportions, `center_crop` resizes
the largest central part with the network's proportions; both bilinear."""

MODES = {1: "L", 3: "RGB"}
"""Number of channels -> Pillow's mode; one channel is luminance."""

# Formats that Pillow decodes by itself, the common ones first. EPS and WMF would start other programs.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "MPO", "PPM", "ICO", "TGA", "PSD", "DDS", "QOI",
    "SGI", "PCX", "DCX", "DIB", "CUR", "ICNS", "BLP", "FITS", "FLI", "FTEX", "GBR", "IM", "MSP", "SPIDER", "SUN", "XBM",
    "XPM",
)  # fmt: skip
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_GREY_MODES = ("1", "L", "LA", "La", *_DEEP_MODES)
_ORIENTATION = 0x0112
_MARKS_OF_EXIF = (b"eXIf", b"Raw profile type", b"adobe.xmp")
"""A PNG file that records an orientation contains one of these."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the picture upright; from 5 on it swaps width and height."""
_FACTORS = {"L;2": 85, "L;4": 17}
"""Pillow's raw mode of grey PNG pixels with few bits -> the factor that it applies to them, but not to the transparent
value."""
_CONVERT = "convert it to JPEG or PNG first"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TOO_LARGE = f"too large a picture; at most {MAX_PIXELS // 10**6} million pixels are allowed"

# Pillow's own limit, for pictures decoded inside plugins: it warns above this number and refuses above twice of it.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Problems that matter become a PictureError; Pillow's warnings do not name the file.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(ValueError):
    """A file is not a picture that can be read. The message is the reason; the caller knows the file."""


@dataclass(frozen=True)
class Header:
    """Properties of a picture that are known before its pixels are read."""

    size: tuple[int, int]
    """H, W, upright."""
    is_grey: bool


@dataclass(frozen=True)
class Picture:
    """A picture as a network sees it."""

    pixels: np.ndarray
    """uint8 [H, W, C]."""
    remark: str | None
    """How the pixels differ from the stored ones, for the user; None if they do not."""


def has_picture_suffix(name: str) -> bool:
    """Whether a file name has the suffix of a picture: of a format that can be read, or of HEIC."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in (".heic", ".heif") or Image.registered_extensions().get(suffix) in _known_formats()


def read_file(path: Path) -> bytes:
    """The bytes of a file that may be a picture. Raises: PictureError: it cannot be read, or is far too large."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise PictureError(f"a file of more than {MAX_FILE_BYTES >> 20} MB is not taken for a picture")
            return file.read()
    except OSError as error:
        raise PictureError(_file_reason(error)) from None


def read_header(data: bytes) -> Header:
    """Returns a picture's header. Raises: PictureError: not a picture, of an unknown format, or too large."""
    return _tried_without_metadata(_header, data)


def read_picture(data: bytes, *, size: tuple[int, int], channels: int, resize: Resize) -> Picture:
    """Returns the first picture of a file: upright, resized, with white in place of transparency.

    Args: size: H, W. channels: 1, luminance, or 3.
    Raises: PictureError: as in `read_header`, or the pixels are damaged.
    """
    return _tried_without_metadata(partial(_picture, size=size, channels=channels, resize=resize), data)


def _tried_without_metadata(read: Callable[[bytes], _Read], data: bytes) -> _Read:
    """Returns the result of `read` for a file; if that fails, the result for the file without its metadata."""
    try:
        return read(data)
    except PictureError:
        bare = without_metadata(data)
        if bare is None:
            raise
        with suppress(PictureError):
            return read(bare)
        raise


def _header(data: bytes) -> Header:
    with _opened(data) as file:
        height, width = file.height, file.width
        # For a TIFF, Pillow already reports the upright size.
        if not isinstance(file, TiffImagePlugin.TiffImageFile) and _orientation(file, data) >= 5:
            height, width = width, height
        is_grey = file.mode in _GREY_MODES or deep_colours.raw_mode(file) == deep_colours.GREY_WITH_ALPHA
        return Header((height, width), is_grey)


def _picture(data: bytes, *, size: tuple[int, int], channels: int, resize: Resize) -> Picture:
    with _opened(data) as file:
        frames = _frames_remark(file)
        picture, scaling = _in_eight_bits(file, data)
        picture = _on_white(picture)
        if picture.mode != MODES[channels]:
            picture = picture.convert(MODES[channels])
        width_height = (size[1], size[0])
        if resize == "squash":
            picture = picture.resize(width_height, Image.Resampling.BILINEAR)
        else:
            picture = ImageOps.fit(picture, width_height, Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.uint8).reshape(*size, channels)
        return Picture(pixels, "; ".join(remark for remark in (frames, scaling) if remark) or None)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Yields the picture with its header read; every decoder error, here or in the block, becomes a PictureError."""
    try:
        with Image.open(BytesIO(data), formats=_known_formats()) as file:
            if file.width * file.height > MAX_PIXELS:
                raise PictureError(_TOO_LARGE)
            yield file
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(_TOO_LARGE) from None
    except UnidentifiedImageError:
        raise PictureError(_what_else(data)) from None
    # Decoders of damaged files raise errors of any kind, and all concern this one file.
    except Exception as error:
        raise PictureError(f"damaged: {str(error) or type(error).__name__}") from error


@cache
def _known_formats() -> list[str]:
    """Returns the formats of `_FORMATS` that this build of Pillow supports."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _orientation(file: Image.Image, data: bytes) -> int:
    """Returns the EXIF orientation, 1 to 8; 1, as stored, if it is absent or the EXIF data are damaged."""
    # Pillow would decode all pixels of a PNG, to search for EXIF data after them.
    if file.format == "PNG" and not any(mark in data for mark in _MARKS_OF_EXIF):
        return 1
    try:
        tags = file.tag_v2 if isinstance(file, TiffImagePlugin.TiffImageFile) else file.getexif()
        value = tags.get(_ORIENTATION)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _upright(file: Image.Image, data: bytes) -> Image.Image:
    """Returns the loaded picture turned upright; of its EXIF data, only the orientation is read."""
    orientation = _orientation(file, data)
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        # Pillow's own `load_end` would read all EXIF data, and turn the picture itself.
        file.load_end = lambda: None  # type: ignore[method-assign]
    if file.format == "PNG" and file.mode == "L" and "transparency" in file.info:
        file.info["transparency"] *= _FACTORS.get(file.tile[0].args, 1)  # type: ignore[attr-defined]
    file.load()
    turn = _TURNS.get(orientation)
    return file if turn is None else file.transpose(turn)


def _in_eight_bits(file: Image.Image, data: bytes) -> tuple[Image.Image, str | None]:
    """Returns the upright picture with eight bits a channel, and a remark if deeper pixels were scaled."""
    raw_mode = deep_colours.raw_mode(file)
    if raw_mode is not None:
        deep_colours.read_upper_bytes(file)
        return deep_colours.to_eight_bits(_upright(file, data), partial(_lower_bytes, data), raw_mode=raw_mode)
    picture = _upright(file, data)
    if picture.mode not in _DEEP_MODES:
        return picture, None
    values = np.asarray(picture)
    pixels, remark = depth.to_eight_bits(values)
    if isinstance(clear := picture.info.get("transparency"), int):
        pixels[values == clear] = 255
    return Image.fromarray(pixels), remark


def _lower_bytes(data: bytes) -> Image.Image | None:
    with _opened(data) as file:
        return _upright(file, data) if deep_colours.read_lower_bytes(file) else None


def _on_white(picture: Image.Image) -> Image.Image:
    """Returns the picture as L or RGB, with white in place of transparency."""
    if not picture.has_transparency_data:
        return picture if picture.mode in MODES.values() else picture.convert(_opaque_mode(picture))
    if picture.mode == "La":
        picture = picture.convert("LA")
    coloured = picture.convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(coloured, mask=coloured.getchannel("A"))
    return white


def _opaque_mode(picture: Image.Image) -> str:
    return "L" if picture.mode in _GREY_MODES else "RGB"


def _frames_remark(file: Image.Image) -> str | None:
    """Returns a remark if a file holds several pictures.

    Not for all formats: the second picture of an MPO is a preview, and counting those of a GIF would read all of it.
    """
    if file.format in ("MPO", "GIF", "FLI", "ICO", "ICNS", "CUR", "PSD"):
        return None
    count = getattr(file, "n_frames", 1)
    return f"holds {count} pictures, of which the first is taken" if count > 1 else None


def _file_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a picture"
    return f"cannot be read: {error.strerror or error}"


def _what_else(data: bytes) -> str:
    """Returns what kind of file Pillow could not identify, and what to do about it."""
    if not data:
        return "an empty file"
    start = data[:512].lstrip().lower()
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIC_BRANDS:
            return (
                f"a HEIC picture, which Pillow cannot read: {_CONVERT}, for example `heif-convert photo.heic photo.jpg`"
            )
        return "not a picture (a film, or damaged)"
    if data.startswith(b"%PDF") or data.startswith(b"%!PS"):
        return f"a PDF or PostScript page: {_CONVERT}"
    if b"<svg" in start:
        return f"an SVG drawing: {_CONVERT}"
    if start.startswith((b"<!doctype html", b"<html")):
        return "not a picture but a web page"
    return "not a picture"
