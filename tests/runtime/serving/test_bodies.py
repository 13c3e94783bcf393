"""Compressed bodies."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from runtime.serving.connections.bodies import inflate
from runtime.serving.errors import RequestError, TooLargeError


def inflated(body: bytes, *, encoding: str = "gzip", limit: int = 10_000_000) -> bytes:
    return asyncio.run(inflate(body, encoding=encoding, limit=limit, take=lambda _: None))


@pytest.mark.parametrize("parts", [[b"one"], [b"one", b"two"], [b"", b"two", b""], [b"a" * 3_000_000, b"b"]])
def test_gzip_may_have_several_members(parts: list[bytes]) -> None:
    assert inflated(b"".join(map(gzip.compress, parts))) == b"".join(parts)


def test_members_together_are_held_to_the_limit() -> None:
    with pytest.raises(TooLargeError):
        inflated(gzip.compress(b"a" * 600) * 2, limit=1000)


@pytest.mark.parametrize(
    "body", [gzip.compress(b"one")[:-1], gzip.compress(b"one") + b"x", b""], ids=["cut short", "goes on", "empty"]
)
def test_what_is_cut_short_or_goes_on_as_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        inflated(body)


def test_deflate_is_one_stream() -> None:
    assert inflated(zlib.compress(b"one"), encoding="deflate") == b"one"
    with pytest.raises(RequestError):
        inflated(zlib.compress(b"one") * 2, encoding="deflate")
