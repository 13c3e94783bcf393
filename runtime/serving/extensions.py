"""What our connections offer beyond ASGI, to whoever answers a request: news of its client, and its repetition.

A client that asks again and again sends the same head every time. What a head says, whether its sender may ask and
where it leads are known by then, so such a request goes straight to the function that the first one left behind. It
passes no parser, no task and no layer, which of a small network's answer take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

ON_DISCONNECT = "enas.on_disconnect"
"""A list of functions to call when the client goes before its answer came."""
REPEATS = "enas.repeats"
"""Takes a `Begin[Response]` for later requests of this connection that have the same head, to the byte.

It is used for those that come while the connection is idle, until another head is remembered; others are read and
routed anew. Absent where there can be none. The gate puts itself in between, as it does with `send`: from the
application it takes a `Begin[Response | Exception]`.
"""


class Response(NamedTuple):
    """A whole one."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes


Outcome = TypeVar("Outcome")
Begin = Callable[[bytes, Callable[[Outcome], None]], Callable[[], None] | None]
"""Begins to answer a body, as `begin(body, reply)`: `reply` is called once in the event loop, later or at once.

Gives a function to call when the client goes, after which there is no reply; None where it has replied already.
"""
