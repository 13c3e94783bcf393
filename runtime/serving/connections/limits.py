"""The parts of a connection that keep count of what it takes; none of them knows HTTP or a transport."""

from __future__ import annotations

from runtime.serving.errors import HeadTooLargeError

_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 128
# What a client must take of its answers to be waited for again.
_MIN_TAKEN_BYTES = 4096


class HeadSize:
    """Size of a head, of the line before a chunk, or of the fields after the last one.

    The parser copies what it has of each whenever more of it comes, so an endless one costs the square of its size.
    """

    _num_unparsed = 0
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
