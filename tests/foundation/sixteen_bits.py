"""PNG and TIFF files with 16 bits a channel in several channels, which Pillow reads but does not write."""

# H height, W width, C channels

from __future__ import annotations

import struct
import zlib
from typing import Literal

import numpy as np

_PNG_COLOUR_TYPES = {2: 4, 3: 2, 4: 6}
"""Channels -> grey with alpha, RGB, RGBA. Source: PNG specification, 11.2.2."""


def png(values: np.ndarray, *, clear: tuple[int, int, int] | None = None) -> bytes:
    """values: uint16 [H, W, C]. clear: of RGB, the colour that is transparent."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    transparency = chunk(b"tRNS", struct.pack(">3H", *clear)) if clear else b""
    parts = chunk(b"IHDR", header), transparency, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, content: bytes) -> bytes:
    """A part of a PNG file, with its length and check sum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(
    values: np.ndarray,
    *,
    order: Literal["<", ">"] = "<",
    deflated: bool = False,
    in_planes: bool = False,
    alpha: int = 2,
) -> bytes:
    """values: uint16 [H, W, C], RGB or RGBA. order: of bytes, as `struct` says it. alpha: 1 premultiplied, 2 not.

    Source: TIFF 6.0, section 2 and the tags' own pages.
    """
    height, width, channels = values.shape
    planes = values.transpose(2, 0, 1) if in_planes else values[None]
    strips = [plane.astype(f"{order}u2").tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    offsets = (8 + np.cumsum([0, *map(len, strips)])).tolist()
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16] * channels),  # bits a sample
        259: ("H", [8 if deflated else 1]),
        262: ("H", [2]),  # RGB
        273: ("I", offsets[:-1]),
        277: ("H", [channels]),
        278: ("I", [height]),  # rows a strip
        279: ("I", [*map(len, strips)]),
        284: ("H", [2 if in_planes else 1]),
    }
    if channels == 4:
        tags[338] = ("H", [alpha])
    start = offsets[-1] + offsets[-1] % 2
    entries, beyond = b"", b""
    for tag, (kind, numbers) in tags.items():
        content = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(content) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(beyond)
            beyond += content
            content = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + content.ljust(4, b"\0")
    body = b"".join(strips).ljust(start - 8, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + beyond
