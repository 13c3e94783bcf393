"""Detects another package of the same name: Hugging Face's `datasets` is installed into the same folder as ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path


class NeighbourError(ValueError):
    """Files of another package have taken the place of ours."""


def require_own_datasets() -> None:
    """Checks that `import datasets` would find our package; imports nothing. Raises: NeighbourError: it would not."""
    spec = importlib.util.find_spec("datasets")
    start = Path(spec.origin) if spec and spec.origin else None
    # Our `__init__` is an empty file, as in all our packages; the package installed last has written it.
    if start and start.stat().st_size == 0 and (start.parent / "store.py").is_file():
        return
    where = start.parent if start else "this environment"
    raise NeighbourError(
        f"{where} is not this tool's package 'datasets': Hugging Face's, of the same name, has taken its place; give "
        "this tool an environment of its own (python -m venv enas; enas/bin/pip install enas-toolchain)"
    )
