"""The names of the search spaces: every module in `arch/spaces/` is one. Loads none of them, to keep `--help` fast."""

from __future__ import annotations

import pkgutil

from searcher.arch import spaces

SPACE_NAMES = tuple(module.name for module in pkgutil.iter_modules(spaces.__path__))
"""In alphabetical order."""
