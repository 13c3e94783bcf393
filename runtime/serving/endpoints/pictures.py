"""Decodes clients' pictures to models' inputs, within limits of time and memory.

The size of a picture's file does not bound its cost: 300 kB of progressive JPEG may contain a thousand scans, each over
all pixels, and decoding takes up to 17 bytes per pixel. So pixels, scans and segments are limited, large pictures are
decoded one at a time, and every picture has a deadline. All pictures being decoded take at most 4 x 136 MB, plus 17
bytes for each of `Settings.max_picture_pixels` (1.4 GB by default).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence

from foundation.allowance import usable_cores
from foundation.limits import MAX_PIXELS
from foundation.pictures import Picture, PictureError, read_header
from runtime.models.images import Preprocess, prepare_file
from runtime.serving.batching.batcher import Batcher, BatchLimits
from runtime.serving.batching.batches import Done
from runtime.serving.connections.exchange import Withdraw
from runtime.serving.errors import ExpiredError, RequestError
from runtime.serving.settings import Settings

_SMALL_PIXELS = 8_000_000
_SIDE_BY_SIDE = 4
# Encoders write about ten scans. Each segment of a file costs a Python object.
_MAX_SCANS = 32
_MAX_SEGMENTS = 2000
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
# Within a scan a byte FF is followed by 00; restarts (D0 to D7) belong to the scan.
_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


class Decoder:
    """Decodes pictures in threads."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.decode_timeout_s
        queue_size = settings.limits.max_queue_size
        runners = max(1, min(_SIDE_BY_SIDE, usable_cores() // settings.workers))
        small = BatchLimits(max_batch_size=1, max_queue_size=queue_size, runners=runners)
        large = BatchLimits(max_batch_size=1, max_queue_size=queue_size)
        max_pixels = settings.max_picture_pixels
        self._small = Batcher(_decoder(min(_SMALL_PIXELS, max_pixels)), limits=small, name="decode")
        self._large = Batcher(_decoder(max_pixels), limits=large, name="decode-large")

    def begin(self, data: bytes, preprocess: Preprocess, tell: Callable[[Done[Picture] | Exception], None]) -> Withdraw:
        """Begin to decode a picture's bytes; as `Batcher.enter`, but the timeout includes the decoding."""
        timer: asyncio.TimerHandle | None = None

        def told(outcome: Done[Picture] | Exception) -> None:
            assert timer is not None
            timer.cancel()
            tell(outcome)

        def expire() -> None:
            withdraw()
            tell(ExpiredError(f"the picture was not decoded within {self._timeout_s:g} s"))

        batcher = self._small if num_pixels(data) <= _SMALL_PIXELS else self._large
        withdraw = batcher.enter((data, preprocess), told)
        timer = asyncio.get_running_loop().call_later(self._timeout_s, expire)

        def withdraw_in_time() -> None:
            timer.cancel()
            withdraw()

        return withdraw_in_time


def _decoder(max_pixels: int) -> Callable[[Sequence[tuple[bytes, Preprocess]], int], list[Picture]]:
    """A function that decodes pictures of at most `max_pixels`. It raises RequestError for any other input."""

    def decode(pictures: Sequence[tuple[bytes, Preprocess]], size: int) -> list[Picture]:
        try:
            for data, _ in pictures:
                _check(data, max_pixels=max_pixels)
            return [prepare_file(data, preprocess=preprocess) for data, preprocess in pictures]
        except PictureError as error:
            raise RequestError(f"the picture: {error}") from None
        except (MemoryError, RequestError):
            raise
        # Any other error of a decoder is also caused by the client's bytes.
        except Exception as error:
            raise RequestError(f"the picture: cannot be read: {type(error).__name__}") from error

    return decode


def _check(data: bytes, *, max_pixels: int) -> None:
    """Raises: RequestError: too many pixels or scans. Bytes that are not a picture are reported later."""
    if (scans := _num_scans(data)) > _MAX_SCANS:
        raise RequestError(f"the picture has {scans} scans, at most {_MAX_SCANS} are allowed")
    try:
        height, width = read_header(data).size
    except PictureError:
        return
    if height * width > max_pixels:
        raise RequestError(f"the picture has {height * width:,} pixels, at most {max_pixels:,} are allowed")


def _num_scans(data: bytes) -> int:
    if data.startswith(_JPEG):
        return sum(marker == _SCAN for marker, _ in _segments(data))
    # A BLP contains JPEGs. libtiff has its own limit.
    return data.count(bytes([0xFF, _SCAN])) if data.startswith(b"BLP") else 0


def num_pixels(data: bytes) -> int:
    """The number of pixels stated in a JPEG's or PNG's head; if it is not found, more than any picture may have."""
    if data.startswith(_PNG):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    if data.startswith(_JPEG):
        for marker, start in _segments(data):
            if marker in _FRAMES:
                return int.from_bytes(data[start + 3 : start + 5], "big") * int.from_bytes(
                    data[start + 5 : start + 7], "big"
                )
    return MAX_PIXELS + 1


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """A JPEG's markers, each with the position of its data; ends where the file is cut short.

    Raises: RequestError: there are too many. Source: ITU-T T.81, B.1.1.
    """
    place = len(_JPEG)
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None:
            return
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker == _END:
            return
        if marker in _BARE:
            continue
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
        if marker == _SCAN:
            end = _SCAN_END.search(data, place)
            if end is None:
                return
            place = end.start()
    raise RequestError(f"the picture has more than {_MAX_SEGMENTS} segments")
