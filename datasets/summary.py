"""A short summary of a data set, and a table of its classes or tokens."""

from __future__ import annotations

import numpy as np

from datasets.store import ImageStore, TextStore
from datasets.tokens import UNITS, UNKNOWN
from foundation.tables import aligned
from foundation.text import printable, shape_text


def summary(store: ImageStore | TextStore) -> str:
    """Returns the amount and kind of data in a store, e.g. `70,000 images 28×28×1 in 10 classes`."""
    total = sum(store.counts.values())
    if isinstance(store, TextStore):
        different = f"{len(store.vocabulary):,}"
        end = f"vocabulary of {different}" if store.tokens != "char" else f"{different} different"
        return f"{total:,} {UNITS[store.tokens]}, {end}"
    return f"{total:,} images {shape_text(store.image_shape)} in {len(store.classes)} classes"


def class_table(store: ImageStore, *, limit: int = 20) -> str:
    """Images of each class in each split; only the first classes if there are many."""
    splits, num_classes = list(store.counts), len(store.classes)
    counts = {split: np.bincount(store.labels(split), minlength=num_classes).tolist() for split in splits}
    rows = [
        [printable(name), *(f"{counts[split][label]:,}" for split in splits)]
        for label, name in enumerate(store.classes[:limit])
    ]
    rows.append(["all", *(f"{count:,}" for count in store.counts.values())])
    lines = aligned(["", *splits], rows).split("\n")
    if num_classes > limit:
        lines.insert(-1, f"and {num_classes - limit} classes more")
    return "\n".join(lines)


def token_table(store: TextStore) -> str:
    """Tokens of each split, and the share of them outside the vocabulary."""
    unknown = unknown_counts(store)
    header = ["", UNITS[store.tokens], *([UNKNOWN] if unknown else [])]
    rows = [
        [split, f"{count:,}", *([f"{unknown[split] / count:.1%}"] if unknown else [])]
        for split, count in store.counts.items()
    ]
    return aligned(header, rows)


def unknown_counts(store: TextStore) -> dict[str, int] | None:
    """Counts the tokens of each split that are `<unk>`; None if the vocabulary does not contain it."""
    if UNKNOWN not in store.vocabulary:
        return None
    number = store.vocabulary.index(UNKNOWN)
    return {split: int((store.stream(split) == number).sum()) for split in store.counts}
