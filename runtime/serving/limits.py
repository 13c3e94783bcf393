"""What a connection may take, and the parts of it that keep count; none of them knows HTTP or a transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from runtime.serving.errors import HeadTooLargeError

_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 128
# What a client must take of its answers to be waited for again.
_MIN_TAKEN_BYTES = 4096
_MAX_GUESTS = 64

Guest = TypeVar("Guest")


@dataclass(frozen=True)
class Limits:
    """What a connection may take."""

    receive_timeout_s: float
    """For a whole request to arrive, and for the first one to begin."""
    send_timeout_s: float
    """For a client to take something of what it was sent."""
    max_connections: int


class HeadSize:
    """Size of a head, of the line before a chunk, or of the fields after the last one.

    The parser copies what it has of each whenever more of it comes, so an endless one costs the square of its size.
    """

    def __init__(self) -> None:
        self._num_fields = self._num_field_bytes = 0
        self._num_unparsed = 0
        """Bytes since the parser last found something whole."""

    def begin(self) -> None:
        """Fields begin: those of a head, or those after a body."""
        self._num_fields = self._num_field_bytes = 0

    def add(self, num_bytes: int, *, num_fields: int) -> None:
        """Raises: HeadTooLargeError."""
        self._num_fields += num_fields
        self._num_field_bytes += num_bytes
        if self._num_field_bytes > _MAX_FIELD_BYTES or self._num_fields > _MAX_FIELDS:
            raise _too_large()

    def add_unparsed(self, num_bytes: int) -> None:
        """Bytes go to the parser."""
        self._num_unparsed += num_bytes

    def parsed(self) -> None:
        """The parser found a whole head, a part of a body, or the end of a request."""
        self._num_unparsed = 0

    def check_unparsed(self) -> None:
        """Raises: HeadTooLargeError: the parser found nothing whole in all that it was given."""
        if self._num_unparsed > _MAX_FIELD_BYTES:
            raise _too_large()


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"a request's head has at most {_MAX_FIELD_BYTES:,} bytes and {_MAX_FIELDS} fields")


class Uptake:
    """How a client takes its answers."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._num_unsent = 0
        self._taken_s = 0.0

    def is_stalled(self, num_unsent: int, *, now_s: float) -> bool:
        """Whether the client has taken nothing for too long. To be asked every now and then."""
        before = self._num_unsent
        if before - _MIN_TAKEN_BYTES < num_unsent <= before and num_unsent > 0:
            return now_s - self._taken_s > self._timeout_s
        # Something was taken, or there is more to take; what was taken beside that cannot be seen.
        self._num_unsent = num_unsent
        if num_unsent < before or before == 0:
            self._taken_s = now_s
        return False


class Guests(Generic[Guest]):
    """Connections beyond the last one that is allowed: each may ask one probe, and gives way to later ones."""

    def __init__(self) -> None:
        self._all: dict[Guest, None] = {}
        """Oldest first."""

    def __contains__(self, connection: Guest) -> bool:
        return connection in self._all

    def add(self, connection: Guest) -> Guest | None:
        """Take one more; gives the one that has to go for it, if there is no room."""
        oldest = next(iter(self._all)) if len(self._all) >= _MAX_GUESTS else None
        if oldest is not None:
            del self._all[oldest]
        self._all[connection] = None
        return oldest

    def discard(self, connection: Guest) -> None:
        self._all.pop(connection, None)
