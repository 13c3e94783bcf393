"""Another package of the same name: Hugging Face's `datasets` puts its files among ours, and ours among its."""

from __future__ import annotations

import importlib.util
from pathlib import Path


class NeighbourError(ValueError):
    """Files of another package have taken the place of ours."""


def require_own_datasets() -> None:
    """Raises: NeighbourError: `import datasets` would find another package than ours. Imports nothing itself."""
    spec = importlib.util.find_spec("datasets")
    start = Path(spec.origin) if spec and spec.origin else None
    # Ours is an empty file, as every `__init__` of ours is; whoever was installed last has written it.
    if start and start.stat().st_size == 0 and (start.parent / "store.py").is_file():
        return
    where = start.parent if start else "this environment"
    raise NeighbourError(
        f"{where} is not this tool's package 'datasets': Hugging Face's, of the same name, has taken its place; give "
        "this tool an environment of its own (python -m venv enas; enas/bin/pip install enas-toolchain)"
    )
