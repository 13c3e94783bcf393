"""Counts a connection's unparsed bytes, header fields and unread answers. Knows nothing of HTTP or transports."""

from __future__ import annotations

from runtime.serving.errors import HeadTooLargeError

_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 128
# A client that reads this much of its answers gets the full timeout again.
_MIN_TAKEN_BYTES = 4096


class HeadSize:
    """The size of a head, of the line before a chunk, or of the fields after the last chunk.

    The parser copies all that it has of such a part whenever more arrives, so the cost grows with the square of its
    size.
    """

    _num_unparsed = 0
    """Bytes since the parser last found something complete."""

    def begin(self) -> None:
        """Fields begin, in a head or after a body."""
        self._num_fields = self._num_field_bytes = 0

    def add(self, num_bytes: int, *, num_fields: int) -> None:
        """Raises: HeadTooLargeError."""
        self._num_fields += num_fields
        self._num_field_bytes += num_bytes
        if self._num_field_bytes > _MAX_FIELD_BYTES or self._num_fields > _MAX_FIELDS:
            raise _too_large()

    def add_unparsed(self, num_bytes: int) -> None:
        """Count bytes given to the parser."""
        self._num_unparsed += num_bytes

    def parsed(self) -> None:
        """The parser found a complete head, a part of a body, or the end of a request."""
        self._num_unparsed = 0

    def check_unparsed(self) -> None:
        """Raises: HeadTooLargeError: the parser found nothing complete in too many bytes."""
        if self._num_unparsed > _MAX_FIELD_BYTES:
            raise _too_large()


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"a request's head has at most {_MAX_FIELD_BYTES:,} bytes and {_MAX_FIELDS} fields")


class Uptake:
    """Detects clients that stop reading their answers."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._num_unsent = 0
        self._taken_s = 0.0

    def is_stalled(self, num_unsent: int, *, now_s: float) -> bool:
        """Whether the client has read too little for longer than the timeout. Must be called regularly."""
        before = self._num_unsent
        if before - _MIN_TAKEN_BYTES < num_unsent <= before and num_unsent > 0:
            return now_s - self._taken_s > self._timeout_s
        # The client read something, or more was added; what it read besides is then not visible.
        self._num_unsent = num_unsent
        if num_unsent < before or before == 0:
            self._taken_s = now_s
        return False
