"""Reads and decompresses request bodies, within a limit for each body and a budget for all of them."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from runtime.serving.connections.exchange import Receive
from runtime.serving.errors import RequestError, TooLargeError, UnavailableError, UnsupportedError

# zlib's `wbits` for gzip, and for deflate, which in HTTP has zlib's header.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CHUNK = 2**20
_ZERO = re.compile(r"q=0(\.0*)?")


class Disconnected(Exception):  # noqa: N818
    """The client disconnected before its request was complete."""


class Budget:
    """The bytes that all bodies together may take."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes

    def take(self, num_bytes: int) -> None:
        """Raises: UnavailableError: fewer are left."""
        if num_bytes > self._left:
            raise UnavailableError("too many large requests at one time")
        self._left -= num_bytes

    def give_back(self, num_bytes: int) -> None:
        self._left += num_bytes

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yields `take` for one request; all that it took is given back at the end."""
        taken = 0

        def take(num_bytes: int) -> None:
            nonlocal taken
            self.take(num_bytes)
            taken += num_bytes

        try:
            yield take
        finally:
            self.give_back(taken)


async def read_body(receive: Receive, headers: Mapping[str, str], *, limit: int, budget: Budget) -> bytes:
    """A request's whole body, decompressed.

    Args: headers: by lower-case name. limit: bytes, of the body both as sent and as decompressed. budget: bytes are
        taken from it while reading, and given back at the end.
    Raises: TooLargeError, RequestError, UnsupportedError; UnavailableError: the budget is spent. Disconnected.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOWS:
        raise UnsupportedError(f"Unsupported compression type {encoding[:40]!r}; use one of {', '.join(_WINDOWS)}")
    if (declared := _content_length(headers)) > limit:
        raise TooLargeError(f"the request's body has {declared:,} bytes, at most {limit:,} are allowed")
    with budget.share() as take:
        body = await _received(receive, limit=limit, take=take)
        return body if encoding == "identity" else await inflate(body, encoding=encoding, limit=limit, take=take)


async def _received(receive: Receive, *, limit: int, take: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    length, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        has_more = message.get("more_body", False)
        length += len(chunk)
        if length > limit:
            raise TooLargeError(f"the request's body has more than the {limit:,} bytes that are allowed")
        take(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def inflate(body: bytes, *, encoding: str, limit: int, take: Callable[[int], None]) -> bytes:
    """A gzip or deflate body, decompressed; gzip with all its members. Raises: RequestError, TooLargeError."""
    stream = zlib.decompressobj(_WINDOWS[encoding])
    chunks: list[bytes] = []
    length, rest = 0, body
    try:
        while True:
            chunk = stream.decompress(rest, _CHUNK)
            rest = stream.unconsumed_tail
            length += len(chunk)
            if length > limit:
                raise TooLargeError(
                    f"the request's decompressed body has more than the {limit:,} bytes that are allowed"
                )
            take(len(chunk))
            chunks.append(chunk)
            if stream.eof and stream.unused_data and encoding == "gzip":
                rest, stream = stream.unused_data, zlib.decompressobj(_WINDOWS[encoding])
            elif stream.eof or not chunk:
                break
            # Other requests are served between the parts of a large body.
            await asyncio.sleep(0)
    except zlib.error:
        raise RequestError(f"the request's body is not {encoding}") from None
    if not stream.eof or stream.unused_data:
        raise RequestError(f"the request's {encoding} body is cut short, or more follows it")
    return b"".join(chunks)


def deflate(body: bytes, *, encoding: str) -> bytes:
    """The body compressed at zlib's fastest level."""
    stream = zlib.compressobj(level=1, wbits=_WINDOWS[encoding])
    return stream.compress(body) + stream.flush()


def accepted_encoding(value: str) -> str | None:
    """The compression that an `Accept-Encoding` header accepts, gzip or deflate; None if neither."""
    wanted = [part.replace(" ", "").partition(";") for part in value.lower().split(",")]
    names = [name for name, _, weight in wanted if not _ZERO.fullmatch(weight)]
    return next((encoding for encoding in _WINDOWS if encoding in names), None)


def _content_length(headers: Mapping[str, str]) -> int:
    value = headers.get("content-length", "0")
    return int(value) if value.isascii() and value.isdigit() else 0
