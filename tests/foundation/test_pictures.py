from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundation.pictures import (
    MAX_FILE_BYTES,
    PictureError,
    has_picture_suffix,
    read_file,
    read_header,
    read_picture,
)
from tests.foundation import sixteen_bits
from tests.foundation.damage import damaged_files, sound_files

GREEN = (0, 128, 0)


def encode(picture: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def pixels_of(data: bytes, *, channels: int = 3) -> np.ndarray:
    """In the file's own size."""
    return read_picture(data, size=read_header(data).size, channels=channels, resize="squash").pixels


def noise(height: int = 6, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


# --- transparency ----------------------------------------------------------------------------------------------------


def half_clear(mode: str) -> bytes:
    """Left half black, right half transparent, whose hidden colour is black too."""
    picture = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 4, 6))
    if mode in ("RGBA", "LA"):
        return encode(picture.convert(mode))
    opaque = (np.asarray(picture)[..., 3] > 0).astype(np.uint8)
    if mode == "P":
        indexed = Image.fromarray(opaque, "P")
        indexed.putpalette([0, 0, 0, 0, 0, 0])
        return encode(indexed, transparency=0)
    if mode == "P, alpha of each colour":
        indexed = Image.fromarray(opaque, "P")
        indexed.putpalette([0, 0, 0, 0, 0, 0])
        return encode(indexed, transparency=bytes([0, 255]))
    if mode == "RGB, one colour clear":
        colours = np.where(opaque[..., None] > 0, 0, np.array((1, 2, 3))).astype(np.uint8)
        return encode(Image.fromarray(colours), transparency=(1, 2, 3))
    if mode == "RGB of 16 bits, one colour clear":
        # Its upper bytes alone are black as well.
        colours = np.where(opaque[..., None] > 0, 0, np.array((1, 2, 3)))
        return sixteen_bits.png(colours, clear=(1, 2, 3))
    if mode == "grey of 2 bits, one value clear":
        rows = b"".join(b"\0" + np.packbits(np.repeat(1 - row, 2) & [0, 1] * 8).tobytes() for row in opaque)
        header = struct.pack(">IIBBBBB", 8, 6, 2, 0, 0, 0, 0)
        parts = (b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(sixteen_bits.chunk(*part) for part in parts)
    if mode == "I;16, one value clear":
        return encode(Image.fromarray(np.where(opaque > 0, 0, 60_000).astype(np.uint16)), transparency=60_000)
    return encode(Image.fromarray((1 - opaque) * 7), transparency=7)  # L


@pytest.mark.parametrize(
    "mode",
    [
        "RGBA",
        "LA",
        "P",
        "P, alpha of each colour",
        "L, one value",
        "RGB, one colour clear",
        "RGB of 16 bits, one colour clear",
        "grey of 2 bits, one value clear",
        "I;16, one value clear",
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(mode: str, channels: int) -> None:
    pixels = pixels_of(half_clear(mode), channels=channels)
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 4:] == 255).all()


def test_half_transparent_is_half_white() -> None:
    assert np.unique(pixels_of(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))) == [127]


@pytest.mark.parametrize("format_name", ["WEBP", "AVIF", "TIFF", "TGA", "DDS", "ICO", "SGI", "QOI"])
def test_every_format_with_transparency_is_put_on_white(format_name: str) -> None:
    pixels = pixels_of(encode(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), format_name))
    assert pixels.min() >= 254


# --- orientation and other metadata ----------------------------------------------------------------------------------

_TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
"""EXIF orientation -> how the stored pixels become upright. Source: EXIF 2.32, tag 0x0112."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_orientation_says(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = noise()
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encode(Image.fromarray(stored), format_name, exif=exif, **options)
    expected = _TURNED[orientation](stored)
    assert read_header(data).size == expected.shape[:2]
    np.testing.assert_array_equal(pixels_of(data), expected)


def jpeg_with(segment: bytes) -> bytes:
    """A JPEG file whose EXIF segment holds these bytes."""
    data = encode(Image.new("RGB", (16, 8), GREEN), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def exif_bytes() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


@pytest.mark.parametrize(
    ("type_number", "value"), [(2, b"6\0\0\0"), (3, b"\x63\0\0\0"), (5, b"\xff\xff\xff\0"), (77, b"6666")]
)
def test_a_wrong_orientation_leaves_the_picture_as_stored(type_number: int, value: bytes) -> None:
    entry = struct.pack("<HHI", 0x112, type_number, 1) + value
    data = jpeg_with(b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0))
    assert pixels_of(data).shape == (8, 16, 3)


def test_no_damage_of_the_exif_data_costs_a_sound_picture() -> None:
    generator, whole = np.random.default_rng(1), exif_bytes()
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        place = int(generator.integers(6, len(damaged)))
        damaged[place : place + int(generator.integers(1, 6))] = generator.choice([0, 1, 2, 5, 7, 128, 255])
        cut = damaged.tobytes()[: int(generator.integers(6, 2 * len(damaged)))]
        assert sorted(pixels_of(jpeg_with(cut)).shape) == [3, 8, 16]


@pytest.mark.parametrize("name", [b"tEXt", b"iCCP", b"eXIf", b"zTXt", b"sRGB"])
def test_a_damaged_note_inside_a_png_costs_no_picture(name: bytes) -> None:
    data = encode(Image.fromarray(noise()))
    chunk = struct.pack(">I", 4) + name + b"\xff\0\xffx" + struct.pack(">I", zlib.crc32(b"something else"))
    np.testing.assert_array_equal(pixels_of(data[:33] + chunk + data[33:]), noise())


# --- deep pixels -----------------------------------------------------------------------------------------------------


def deep(values: np.ndarray) -> tuple[list[int], str | None]:
    data = encode(Image.fromarray(values), "TIFF")
    picture = read_picture(data, size=values.shape, channels=1, resize="squash")
    return picture.pixels.ravel().tolist(), picture.remark


@pytest.mark.parametrize(
    ("values", "pixels", "remark"),
    [
        (np.array([[0, 0x8000, 0xFFFF]], np.uint16), [0, 128, 255], None),
        (np.array([[0, 0x800, 0xFFF]], np.uint16), [0, 128, 255], "no value above 4095: read as 12 bits a pixel"),
        (np.array([[0, 200, 900]], np.uint16), [0, 50, 225], "no value above 900: read as 10 bits a pixel"),
        (np.array([[0, 1, 255]], np.uint16), [0, 1, 255], "no value above 255: read as 8 bits a pixel"),
        (np.zeros((1, 2), np.uint16), [0, 0], None),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255], "floating-point values: read as 0 to 1"),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255], "floating-point values: read as 0 to 255"),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255], "values from -1 to 1: scaled to that range"),
        (np.array([[-3e38, 3e38]], np.float32), [0, 255], "values from -3e+38 to 3e+38: scaled to that range"),
        (np.array([[np.nan, 0.25, 1, np.inf]], np.float32), [64, 64, 255, 64], "floating-point values: read as 0 to 1"),
        (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255], "values from 0 to 100000: scaled to that range"),
    ],
)
def test_deep_pixels_are_scaled_by_their_range_and_it_is_said(
    values: np.ndarray, pixels: list[int], remark: str | None
) -> None:
    assert deep(values) == (pixels, remark)


COLOURS = np.array([[[0, 17, 0x800], [0xFFF, 300, 0x7FF]]], np.uint16)
"""Of 12 bits; the upper bytes alone are 0 to 15."""
_IN_EIGHT_BITS = (COLOURS >> 4).tolist()
_TWELVE_BITS = "no value above 4095: read as 12 bits a pixel"
_WAYS = {
    "PNG": sixteen_bits.png,
    "TIFF": sixteen_bits.tiff,
    "TIFF, big endian": partial(sixteen_bits.tiff, order=">"),
    "TIFF, deflated": partial(sixteen_bits.tiff, deflated=True),
    "TIFF, deflated, big endian": partial(sixteen_bits.tiff, deflated=True, order=">"),
    "TIFF, in planes": partial(sixteen_bits.tiff, in_planes=True),
    "TIFF, in planes, big endian": partial(sixteen_bits.tiff, in_planes=True, order=">"),
}
"""How colours of 16 bits are written; of all these every bit can be read."""


def deep_colours(data: bytes) -> tuple[list, str | None]:
    picture = read_picture(data, size=read_header(data).size, channels=3, resize="squash")
    return picture.pixels.tolist(), picture.remark


@pytest.mark.parametrize("way", _WAYS)
def test_colours_of_twelve_bits_in_sixteen_are_scaled_as_grey_is(way: str) -> None:
    assert deep_colours(_WAYS[way](COLOURS)) == (_IN_EIGHT_BITS, _TWELVE_BITS)


@pytest.mark.parametrize("way", _WAYS)
def test_colours_of_sixteen_bits_are_scaled_by_their_type(way: str) -> None:
    full = COLOURS << 4
    assert deep_colours(_WAYS[way](full)) == ((full >> 8).tolist(), None)


@pytest.mark.parametrize("way", _WAYS)
def test_colours_of_eight_bits_in_sixteen_are_all_kept(way: str) -> None:
    values = np.arange(256, dtype=np.uint16)[None, :, None].repeat(3, 2)
    assert deep_colours(_WAYS[way](values)) == (values.tolist(), "no value above 255: read as 8 bits a pixel")


@pytest.mark.parametrize("opaque", [0xFFFF, 0xFFF])
@pytest.mark.parametrize("way", [sixteen_bits.png, sixteen_bits.tiff])
def test_alpha_of_as_many_bits_as_the_colours_is_scaled_with_them(way: Callable, opaque: int) -> None:
    alpha = np.array([[[opaque], [0]]], np.uint16)
    pixels, remark = deep_colours(way(np.concatenate([COLOURS, alpha], axis=2)))
    assert (pixels, remark) == ([[_IN_EIGHT_BITS[0][0], [255, 255, 255]]], _TWELVE_BITS)


def test_grey_of_twelve_bits_with_alpha_is_scaled() -> None:
    data = sixteen_bits.png(np.array([[[0x7FF, 0xFFFF], [0xFFF, 0xFFFF], [0, 0]]], np.uint16))
    assert deep_colours(data) == ([[[127] * 3, [255] * 3, [255] * 3]], _TWELVE_BITS)
    assert read_header(data).is_grey
    assert not read_header(sixteen_bits.png(COLOURS)).is_grey


def test_where_only_the_upper_bytes_can_be_read_they_are_scaled() -> None:
    pixels, remark = deep_colours(sixteen_bits.tiff(COLOURS, deflated=True, in_planes=True))
    assert np.abs(np.array(pixels) - _IN_EIGHT_BITS).max() < 16
    assert (pixels[0][0][0], pixels[0][1][0], remark) == (0, 255, _TWELVE_BITS)


def test_deep_colours_are_turned_as_their_orientation_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = sixteen_bits.png(COLOURS)
    data = data[:33] + sixteen_bits.chunk(b"eXIf", exif.tobytes()[6:]) + data[33:]
    assert deep_colours(data)[0] == np.rot90(np.array(_IN_EIGHT_BITS), -1).tolist()


def test_the_first_of_several_pages_is_taken_and_it_is_said() -> None:
    pages = [Image.new("L", (4, 4), shade) for shade in (10, 20, 30)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    picture = read_picture(data, size=(4, 4), channels=1, resize="squash")
    assert (np.unique(picture.pixels), picture.remark) == ([10], "holds 3 pictures, of which the first is taken")


# --- what is no picture ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"some text", "not a picture"),
        (b"<html>404</html>", "not a picture but a web page"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing: convert it to JPEG or PNG first"),
        (b"%PDF-1.7", "a PDF or PostScript page: convert it to JPEG or PNG first"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "a HEIC picture, which Pillow cannot read: convert it to JPEG",
        ),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        read_header(data)
    assert str(caught.value).startswith(reason)


def test_a_file_far_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "film.mkv", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(PictureError, match="a file of more than 512 MB is not taken for a picture"):
        read_file(tmp_path / "film.mkv")


def test_suffixes_of_pictures_are_known() -> None:
    names = ["a.PNG", "a.jpeg", "a.webp", "a.heic", "a.txt", "a", "a.eps", "a.csv"]
    assert [has_picture_suffix(name) for name in names] == [True, True, True, True, False, False, False, False]


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_format_that_pillow_writes_is_read() -> None:
    for name, data in sound_files().items():
        assert pixels_of(data).dtype == np.uint8, name


def look_at(count: int, *, seed: int) -> int:
    """Read damaged files, of which each must give pixels or a PictureError, and nothing else. Returns: those read."""
    num_read = 0
    for name, data in damaged_files(count, seed=seed):
        try:
            read_header(data)
            pixels = read_picture(data, size=(8, 8), channels=3, resize="squash").pixels
        except PictureError:
            continue
        assert pixels.shape == (8, 8, 3), name
        num_read += 1
    return num_read


def test_damaged_files_of_every_format_are_read_or_refused() -> None:
    assert 200 < look_at(2_000, seed=0) < 1_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_damaged_files_are_read_or_refused() -> None:
    assert look_at(100_000, seed=1) > 10_000
