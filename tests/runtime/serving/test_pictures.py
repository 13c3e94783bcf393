"""Pictures that cost more than they weigh."""

from __future__ import annotations

import asyncio
import io
import math
import struct
import threading
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from foundation.limits import MAX_PIXELS
from foundation.pictures import Picture, PictureError, read_header
from runtime.models.images import Preprocess
from runtime.serving.batching.batches import Done
from runtime.serving.endpoints import pictures
from runtime.serving.endpoints.pictures import Decoder, num_pixels
from runtime.serving.errors import ExpiredError, RequestError
from runtime.serving.settings import Settings
from tests.runtime.serving.waiting import told

GREY = Preprocess(resize="squash", height=6, width=8, channels=1)


def jpeg(width: int = 40, height: int = 30, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(stream, "JPEG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG with its first scan, the coarsest, again and again."""
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff", start + 2)
    while data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
        end = data.index(b"\xff", end + 2)
    return data[:start] + data[start:end] * count + data[end:]


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def decode(*files: bytes, timeout_s: float = 20, **settings: int) -> list[Picture | Exception]:
    """What becomes of pictures that come at the same time."""

    async def scenario() -> list[Picture | Exception]:
        decoder = Decoder(Settings(Path("models"), decode_timeout_s=timeout_s, **settings))
        loop = asyncio.get_running_loop()

        def begin(data: bytes) -> asyncio.Future[Picture | Exception]:
            future = loop.create_future()

            def tell(outcome: Done[Picture] | Exception) -> None:
                future.set_result(outcome if isinstance(outcome, Exception) else outcome.result)

            try:
                decoder.begin(data, GREY, tell)
            except RequestError as error:
                future.set_result(error)
            return future

        return list(await asyncio.gather(*map(begin, files)))

    return asyncio.run(scenario())


@pytest.mark.parametrize("data", [jpeg(), jpeg(progressive=True), jpeg(quality=95, subsampling=0), png(40, 30)])
def test_pictures_are_decoded(data: bytes) -> None:
    (picture,) = decode(data)
    assert isinstance(picture, Picture)
    assert picture.pixels.shape == (6, 8, 1)
    assert num_pixels(data) == 1200


def test_a_jpeg_of_more_scans_than_encoders_make_is_refused_at_once() -> None:
    data = with_scans(jpeg(3000, 2000, progressive=True), 1000)
    start_s = time.process_time()  # of the CPU: others may have the machine
    (refused,) = decode(data)
    assert isinstance(refused, RequestError)
    assert str(refused).endswith("scans, at most 32 are allowed")
    assert time.process_time() - start_s < 2


def jpeg_that_says(*, height: int, width: int) -> bytes:
    """One whose head states this size, whatever follows."""
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_the_server_refuses_no_picture_that_import_takes_and_no_other() -> None:
    side = math.isqrt(MAX_PIXELS)
    (taken,) = decode(jpeg_that_says(height=side, width=side))
    assert isinstance(taken, Picture)  # cut short, it is grey from there on
    data = jpeg_that_says(height=side + 1, width=side + 1)
    (refused,) = decode(data)
    with pytest.raises(PictureError) as caught:
        read_header(data)
    assert str(refused) == f"the picture: {caught.value}"


def test_a_server_may_take_smaller_pictures_alone() -> None:
    (refused,) = decode(jpeg_that_says(height=3000, width=4000), max_picture_pixels=10_000_000)
    assert str(refused) == "the picture has 12,000,000 pixels, at most 10,000,000 are allowed"
    (refused,) = decode(png(40, 30), max_picture_pixels=1000)
    assert str(refused) == "the picture has 1,200 pixels, at most 1,000 are allowed"


def test_more_segments_than_a_picture_has_are_refused() -> None:
    data = jpeg()
    (refused,) = decode(data[:2] + b"\xff\xe5\x00\x02" * 100_000 + data[2:])
    assert str(refused) == "the picture has more than 2000 segments"


@pytest.mark.parametrize("seed", range(3))
def test_damage_of_any_kind_is_the_clients(seed: int) -> None:
    dice = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = np.frombuffer(jpeg(exif=exif, progressive=True), np.uint8)
    damaged = []
    for _ in range(100):
        copy = whole.copy()
        copy[dice.integers(2, len(copy), 5)] = dice.integers(0, 256, 5)
        damaged.append(copy.tobytes())
    for outcome in decode(*damaged):
        assert isinstance(outcome, Picture | RequestError)


def test_a_picture_that_is_not_decoded_in_time_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "prepare_file", lambda data, **_: time.sleep(1))
    start = time.monotonic()
    outcomes = decode(jpeg(), jpeg(), timeout_s=0.1)
    assert all(isinstance(outcome, ExpiredError) for outcome in outcomes)
    assert time.monotonic() - start < 0.9


def test_large_pictures_are_decoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    most = now = 0

    def decoded(data: bytes, **_: object) -> Picture:
        nonlocal most, now
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        return Picture(np.zeros((6, 8, 1), np.uint8), None)

    monkeypatch.setattr(pictures, "prepare_file", decoded)
    decode(*[png(4000, 3000)] * 5)
    assert most == 1


def test_none_is_decoded_in_the_event_loop_however_fast_earlier_ones_were(tmp_path: Path) -> None:
    threads = []

    def prepare(data: bytes, *, preprocess: Preprocess) -> Picture:
        threads.append(threading.get_ident())
        return real(data, preprocess=preprocess)

    async def scenario() -> None:
        decoder = Decoder(Settings(tmp_path))
        for _ in range(5):
            await told(partial(decoder.begin, jpeg(), GREY))

    real = pictures.prepare_file
    with patch.object(pictures, "prepare_file", prepare):
        asyncio.run(scenario())
    assert len(threads) == 5
    assert threading.get_ident() not in threads
