"""What all spaces with a field of operations check about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from searcher.arch.document import ConfigError, unknown


def check_operations(operations: Sequence[str], known: Collection[str]) -> None:
    """Raises: ConfigError: there are none, one stands twice, or one is not known."""
    for operation in operations:
        if operation not in known:
            raise ConfigError(f"operations: {unknown('operation', operation, known)}")
    if not operations or len(set(operations)) != len(operations):
        raise ConfigError(f"operations is {list(operations)}; expected one or more different operations")
