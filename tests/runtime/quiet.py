"""Tests that measure times, on a machine that others use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any


def in_a_quiet_moment(test: Callable[..., None]) -> Callable[..., None]:
    """A test that may fail twice: another process may need the cores meanwhile."""

    @wraps(test)
    def tried(*args: Any, **options: Any) -> None:
        for _ in range(2):
            with suppress(AssertionError):
                return test(*args, **options)
        return test(*args, **options)

    return tried
