"""Colour pictures with 16 bits a channel, of which Pillow reads only the upper eight bits.

A picture with 12 bits stored in 16 would become black. So if the upper bytes are small, the file is decoded a second
time with the opposite byte order, which yields the lower bytes; then the pixels are scaled like grey ones.
"""

# H height, W width, C channels: red, green, blue and perhaps alpha

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from foundation.depth import bits_that_hold, remark_on_bits

_ORDERS = (";16B", ";16L", ";16N")
"""Endings of Pillow's raw modes: big endian, little endian, the machine's byte order."""
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_WITH_ALPHA = "LA;16B"
"""Raw mode of a grey PNG with alpha, which Pillow loads as RGBA."""
_PREMULTIPLIED = "RGBa"
_PLANES = ("R", "G", "B", "A")
_BITS_PER_SAMPLE, _PLANAR_CONFIGURATION = 258, 284
_PIXELS_AT_ONCE = 1 << 16
"""Pixels processed at a time, in whole rows, so that memory does not hold a second and a third copy of a picture."""


def raw_mode(file: Image.Image) -> str | None:
    """Returns Pillow's raw mode of an opened PNG or TIFF if it has colours of 16 bits a channel, else None."""
    tiles = getattr(file, "tile", None)
    if file.format not in ("PNG", "TIFF") or file.mode not in ("RGB", "RGBA") or not tiles:
        return None
    name = _name(tiles[0])
    return name if name.endswith(_ORDERS) or _has_raw_planes(file) else None


def read_upper_bytes(file: Image.Image) -> None:
    """Makes `file.load` return the upper bytes. Only files with separate, uncompressed planes need a change.

    Args: file: opened, with a `raw_mode`.
    """
    if _has_raw_planes(file):
        _rename(file, lambda plane: f"{plane};16{_byte_order(file)}")


def read_lower_bytes(file: Image.Image) -> bool:
    """Makes `file.load` return the lower bytes; for grey with alpha, all four bytes as RGBA. False if Pillow cannot.

    Args: file: as for `read_upper_bytes`.
    """
    name = raw_mode(file)
    assert name is not None
    if _has_raw_planes(file):
        _rename(file, lambda plane: f"{plane};16{_OTHER_ORDER[_byte_order(file)]}")
    elif name.startswith(_PREMULTIPLIED) or _has_planes(file):
        return False
    elif name == GREY_WITH_ALPHA:
        _rename(file, lambda _: "RGBA")
    else:
        _rename(file, lambda pixels: pixels[:-1] + _OTHER_ORDER[pixels[-1]])
    return True


def to_eight_bits(
    upper: Image.Image, load_lower: Callable[[], Image.Image | None], *, raw_mode: str
) -> tuple[Image.Image, str | None]:
    """Returns the picture with eight bits a channel, and a remark on its scaling; None if it uses all 16 bits.

    All colour channels are scaled by the same number of bits, and alpha too if it needs no more bits than they do. The
    colour that the file declares transparent becomes white.

    Args: upper: RGB or RGBA, the upper bytes; changed in place. load_lower: called if the lower bytes are needed;
        returns the picture loaded after `read_lower_bytes`, or None if that failed. raw_mode: the file's.
    """
    clear = upper.info.pop("transparency", None)
    tops = [int(high) for _, high in upper.getextrema()]  # type: ignore[misc]
    bits = bits_that_hold(max(tops[:3]) << 8)
    if bits == 16 and clear is None:
        return upper, None
    shifts = [bits - 8 if top < 1 << (bits - 8) else 8 for top in tops]
    lower, largest = load_lower(), 0
    num_rows = max(1, _PIXELS_AT_ONCE // upper.width)
    for row in range(0, upper.height, num_rows):
        box = (0, row, upper.width, min(row + num_rows, upper.height))
        high = np.asarray(upper.crop(box)).astype(np.uint16)
        if lower is None:
            # The lower bytes are unknown: taken in proportion to the upper ones, so that values span the whole range.
            low = high * 255 // max(1, (1 << (bits - 8)) - 1)
        else:
            low = np.asarray(lower.crop(box))
            low = low[..., [1, 1, 1, 3]] if raw_mode == GREY_WITH_ALPHA else low
        values = high << 8 | low
        largest = max(largest, int(values[..., :3].max()))
        pixels = (values >> shifts).astype(np.uint8)
        if clear is not None:
            pixels[(values[..., :3] == clear).all(axis=-1)] = 255
        upper.paste(Image.fromarray(pixels), box)
    return upper, remark_on_bits(largest)


def _name(tile: ImageFile._Tile) -> str:
    """Returns Pillow's raw mode of a tile of a file."""
    return tile.args if isinstance(tile.args, str) else str(tile.args and tile.args[0])


def _rename(file: Image.Image, new_name: Callable[[str], str]) -> None:
    """Changes the raw mode in which an opened file will be loaded; Pillow stores it with each tile until then."""
    assert isinstance(file, ImageFile.ImageFile)
    tiles = []
    for tile in file.tile:
        name = new_name(_name(tile))
        tiles.append(tile._replace(args=name if isinstance(tile.args, str) else (name, *(tile.args or ())[1:])))
    file.tile = tiles


def _has_planes(file: Image.Image) -> bool:
    """Whether a file is a TIFF with separate planes: all red before all green."""
    return isinstance(file, TiffImagePlugin.TiffImageFile) and file.tag_v2.get(_PLANAR_CONFIGURATION) == 2


def _has_raw_planes(file: Image.Image) -> bool:
    """Whether the planes are uncompressed with 16 bits a sample, which Pillow reads as 8 bits."""
    if not _has_planes(file) or _name(file.tile[0]) not in _PLANES:  # type: ignore[attr-defined]
        return False
    return set(file.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}  # type: ignore[attr-defined]


def _byte_order(file: Image.Image) -> str:
    return "B" if file.tag_v2.prefix == b"MM" else "L"  # type: ignore[attr-defined]
