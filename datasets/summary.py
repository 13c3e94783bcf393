"""A data set in half a line."""

from __future__ import annotations

from datasets.store import ImageStore, TextStore, shape_text
from datasets.tokens import UNITS


def summary(store: ImageStore | TextStore) -> str:
    """How much a store holds of what, e.g. `70,000 images 28×28×1 in 10 classes`."""
    total = sum(store.counts.values())
    if isinstance(store, TextStore):
        different = f"{len(store.vocabulary):,}"
        end = f"vocabulary of {different}" if store.tokens == "word" else f"{different} different"
        return f"{total:,} {UNITS[store.tokens]}, {end}"
    return f"{total:,} images {shape_text(store.image_shape)} in {len(store.classes)} classes"
