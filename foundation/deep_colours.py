"""Colours of 16 bits a channel, of which Pillow reads the upper eight bits alone.

A picture of 12 bits in 16 would come out black. So where the upper bytes are small, the file is decoded a second time
as if its bytes stood in the other order, which gives the lower ones; then the pixels are scaled as grey ones are.
"""

# H height, W width, C channels: red, green, blue and perhaps alpha

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from foundation.depth import bits_that_hold, remark_on_bits

_ORDERS = (";16B", ";16L", ";16N")
"""How Pillow's names of raw pixels end: big endian, little endian, as the machine has it."""
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_WITH_ALPHA = "LA;16B"
"""Of a PNG: Pillow makes it RGBA."""
_PREMULTIPLIED = "RGBa"
_PLANES = ("R", "G", "B", "A")
_BITS_PER_SAMPLE, _PLANAR_CONFIGURATION = 258, 284
_PIXELS_AT_ONCE = 1 << 16
"""Worked on together, in whole rows, so that memory holds no second and third copy of a picture."""


def raw_mode(file: Image.Image) -> str | None:
    """Pillow's name of the raw pixels of an opened PNG or TIFF, if they are colours of 16 bits a channel; else None."""
    tiles = getattr(file, "tile", None)
    if file.format not in ("PNG", "TIFF") or file.mode not in ("RGB", "RGBA") or not tiles:
        return None
    name = _name(tiles[0])
    return name if name.endswith(_ORDERS) or _has_raw_planes(file) else None


def read_upper_bytes(file: Image.Image) -> None:
    """Make `file.load` give the upper bytes. It does, except where planes lie uncompressed one after the other.

    file: opened, one that has a `raw_mode`.
    """
    if _has_raw_planes(file):
        _rename(file, lambda plane: f"{plane};16{_byte_order(file)}")


def read_lower_bytes(file: Image.Image) -> bool:
    """Make `file.load` give the lower bytes, or of grey with alpha all four as one RGBA. False if Pillow cannot.

    file: as for `read_upper_bytes`.
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
    """The picture in eight bits a channel, and how it was scaled; None if by its type.

    The range is that of all colours together, and of alpha too if it needs no more bits than they. A colour that the
    file calls transparent becomes white.

    Args: upper: RGB or RGBA, the upper bytes; changed in place. load_lower: called if they are needed; gives what was
        loaded after `read_lower_bytes`, or None. raw_mode: the file's.
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
            # The most that is known: a value keeps its place between the smallest and the largest.
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
    """What Pillow calls the raw pixels of one of a file's tiles."""
    return tile.args if isinstance(tile.args, str) else str(tile.args and tile.args[0])


def _rename(file: Image.Image, new_name: Callable[[str], str]) -> None:
    """Have the raw pixels of an opened file read as others. Pillow keeps their name with each tile, until it loads."""
    assert isinstance(file, ImageFile.ImageFile)
    tiles = []
    for tile in file.tile:
        name = new_name(_name(tile))
        tiles.append(tile._replace(args=name if isinstance(tile.args, str) else (name, *(tile.args or ())[1:])))
    file.tile = tiles


def _has_planes(file: Image.Image) -> bool:
    """Whether all red comes before all green."""
    return isinstance(file, TiffImagePlugin.TiffImageFile) and file.tag_v2.get(_PLANAR_CONFIGURATION) == 2


def _has_raw_planes(file: Image.Image) -> bool:
    """Whether the planes are uncompressed and of 16 bits, which Pillow takes for 8."""
    if not _has_planes(file) or _name(file.tile[0]) not in _PLANES:  # type: ignore[attr-defined]
        return False
    return set(file.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}  # type: ignore[attr-defined]


def _byte_order(file: Image.Image) -> str:
    return "B" if file.tag_v2.prefix == b"MM" else "L"  # type: ignore[attr-defined]
