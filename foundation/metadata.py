"""Removes metadata from JPEG and PNG files: damaged metadata must not make an intact picture unreadable."""

from __future__ import annotations

import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED_CHUNKS = (b"tRNS", b"eXIf")
"""Chunks that a reader may skip, but that change how a PNG looks: transparency and orientation."""
# EXIF and XMP, ICC and MPF, Photoshop's, comments. APP14 is needed: it defines how colours are encoded.
_DROPPED_MARKERS = (0xE1, 0xE2, 0xED, 0xFE)
_START_OF_SCAN = 0xDA


def without_metadata(data: bytes) -> bytes | None:
    """Returns the file without its metadata; None if it has another format, or no metadata."""
    if data.startswith(b"\xff\xd8"):
        kept = _jpeg(data)
    elif data.startswith(_PNG):
        kept = _png(data)
    else:
        return None
    return kept if len(kept) < len(data) else None


def _jpeg(data: bytes) -> bytes:
    """Filters segments (FF, marker, big-endian length); everything from the first scan on stays unchanged."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker not in _DROPPED_MARKERS:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, data[place:]])


def _png(data: bytes) -> bytes:
    """Filters chunks (length, name, content, CRC); a lower-case initial marks a chunk that a reader may skip."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place : place + 12 + length]
        name, is_sound = chunk[4:8], zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if name[:1].isupper() or (name in _NEEDED_CHUNKS and is_sound):
            kept.append(chunk)
        place += len(chunk)
    return b"".join([*kept, data[place:]])
