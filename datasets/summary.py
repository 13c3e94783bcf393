"""A data set in half a line, and its classes as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.store import ImageStore, TextStore, shape_text
from datasets.tokens import UNITS
from foundation.text import printable


def summary(store: ImageStore | TextStore) -> str:
    """How much a store holds of what, e.g. `70,000 images 28×28×1 in 10 classes`."""
    total = sum(store.counts.values())
    if isinstance(store, TextStore):
        different = f"{len(store.vocabulary):,}"
        end = f"vocabulary of {different}" if store.tokens == "word" else f"{different} different"
        return f"{total:,} {UNITS[store.tokens]}, {end}"
    return f"{total:,} images {shape_text(store.image_shape)} in {len(store.classes)} classes"


def class_table(store: ImageStore, *, limit: int = 20) -> str:
    """Images of each class in each split; only the first classes if there are many."""
    splits, num_classes = list(store.counts), len(store.classes)
    counts = {split: np.bincount(store.labels(split), minlength=num_classes).tolist() for split in splits}
    names = [printable(name) for name in store.classes[:limit]]
    width = max(8, *map(len, names))
    lines = [_row("", splits, width)]
    lines += [_row(name, [counts[split][label] for split in splits], width) for label, name in enumerate(names)]
    if num_classes > limit:
        lines.append(f"and {num_classes - limit} classes more")
    return "\n".join([*lines, _row("all", list(store.counts.values()), width)])


def _row(name: str, cells: Sequence[str | int], width: int) -> str:
    texts = [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]
    return f"{name:<{width}}" + "".join(f"{text:>10}" for text in texts)
