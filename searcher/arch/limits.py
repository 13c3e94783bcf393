"""Maximum sizes of networks and search spaces: larger numbers are mistakes that would exhaust memory."""

from __future__ import annotations

from foundation.document import ConfigError

MAX_WIDTH = 65_536
"""Maximum width of a layer or a state, in channels or features."""
MAX_DEPTH = 1_000
"""Maximum layers of a stage and cells of a network; in a search space also layers of a network and nodes of a cell."""


def check_at_most(most: int, **sizes: int) -> None:
    """Raises: ConfigError: one of the sizes, given by name, is above `most`."""
    for name, size in sizes.items():
        if size > most:
            raise ConfigError(f"{name} is {size:,}; at most {most:,} is allowed")
