"""Sound picture files in every format that Pillow writes, and damaged ones made of them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.foundation import sixteen_bits

_MODES = ("RGB", "L", "P", "RGBA", "1", "LA", "CMYK", "I;16", "F")
# They are no pictures that one reads back: a page, and stubs for programs of others.
_NOT_READ = ("PDF", "EPS", "WMF", "BUFR", "GRIB", "HDF5", "PALM")


def sound_files() -> dict[str, bytes]:
    """A small picture in each format and each of the common modes that the format can hold; `PNG-RGBA` -> bytes.

    And those with 16 bits a channel.
    """
    Image.init()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8298] = 6, "maker", "owner"
    files = {}
    for format_name in sorted(set(Image.SAVE) - set(_NOT_READ)):
        # Icons are written in ten sizes up to 1024, which takes a second.
        for mode in _MODES[:1] if format_name == "ICNS" else _MODES:
            picture = _in_mode(noise, mode)
            buffer = io.BytesIO()
            try:
                picture.save(buffer, format_name, exif=exif, speed=10)  # speed: of AVIF
            except (OSError, ValueError, KeyError, SystemError):
                continue
            if buffer.getvalue():
                files[f"{format_name}-{mode}"] = buffer.getvalue()
    colours = np.random.default_rng(1).integers(0, 4096, (16, 16, 4), np.uint16)
    files["PNG-LA;16"] = sixteen_bits.png(colours[..., :2])
    files["PNG-RGB;16"] = sixteen_bits.png(colours[..., :3], clear=(0, 0, 0))
    files["PNG-RGBA;16"] = sixteen_bits.png(colours)
    files["TIFF-RGB;16"] = sixteen_bits.tiff(colours[..., :3])
    files["TIFF-RGBA;16"] = sixteen_bits.tiff(colours, deflated=True)
    files["TIFF-R;16"] = sixteen_bits.tiff(colours[..., :3], in_planes=True)
    return files


def _in_mode(noise: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(noise).convert(mode)


def damaged_files(count: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, the formats in turn: cut short, bits turned, bytes changed, parts lost or doubled."""
    generator = np.random.default_rng(seed)
    sound = list(sound_files().items())
    for number in range(count):
        name, data = sound[number % len(sound)]
        array = np.frombuffer(data, np.uint8).copy()
        for _ in range(int(generator.integers(1, 4))):
            array = _damage(array, generator)
        yield f"{name} ({number})", array.tobytes()


def _damage(data: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if len(data) < 2:
        return data
    # Headers are where a byte matters most.
    end = len(data) if generator.random() < 0.5 else min(len(data), 128)
    first, last = sorted(generator.integers(0, end, 2).tolist())
    match int(generator.integers(0, 6)):
        case 0:
            return data[:last]
        case 1:
            data[first] ^= 1 << int(generator.integers(0, 8))
            return data
        case 2:
            data[first : first + 4] = generator.choice([0, 1, 0x7F, 0x80, 0xFF], 1)
            return data
        case 3:
            return np.concatenate([data[:first], data[last:]])
        case 4:
            return np.concatenate([data[:last], data[first:]])
        case _:
            data[first:last] = generator.integers(0, 256, last - first)
            return data
