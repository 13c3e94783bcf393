"""How large a network may be, in every space alike: beyond it numbers are slips, which would fill all memory."""

from __future__ import annotations

from searcher.arch.document import ConfigError

MAX_WIDTH = 65_536
"""Of a layer or a state, in channels or features. The widest published networks have a tenth of it."""
MAX_DEPTH = 1_000
"""Layers of a network or a stage, cells of a network, nodes of a cell. ResNet-1001 is the deepest published network."""


def check_at_most(most: int, **sizes: int) -> None:
    """Raises: ConfigError: one of the sizes, given by name, is above `most`."""
    for name, size in sizes.items():
        if size > most:
            raise ConfigError(f"{name} is {size:,}; at most {most:,} is allowed")
