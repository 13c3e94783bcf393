"""Who goes into which split: seeded, stratified by class, identical images kept together; and what splits are called.

Knows nothing of files or stores: labels in, indices out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from foundation.seeds import numpy_generator

NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What people call each split. Source: the keywords of Hugging Face's image folders, and a few more."""
_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}
_NAME = re.compile(rf"({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(?:[ _-]?(?:set|data|images|imgs|split))?")


def split_called(name: str) -> str | None:
    """The split that a folder, a file or a table calls by that name, in any case: `Training`, `val`, `test_set`."""
    match = _NAME.fullmatch(name.strip().lower())
    return _SPLIT_OF[match[1]] if match else None


def stratified_split(
    labels: np.ndarray,
    *,
    fractions: Mapping[str, float],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Divide the examples of every class in the same proportions.

    The unit is a group: all its members go where its first one goes, and proportions are those of groups. The first
    split takes what the others leave; a class of fewer groups than splits goes wholly to the first.

    Args: labels: [N], class of each example. fractions: of each split, summing to 1, the first being train.
        groups: [N], equal numbers for examples that may not be separated; by default each stands alone.
    Returns: ascending indices of each split.
    """
    if groups is None:
        groups = np.arange(len(labels))
    _, first_member, group_of = np.unique(groups, return_index=True, return_inverse=True)
    group_labels = labels[first_member]
    split_of = np.zeros(len(first_member), np.int64)
    for label in np.unique(group_labels):
        # A stream a class: more examples of one class leave the others where they were.
        members = numpy_generator(seed, "split", int(label)).permutation(np.flatnonzero(group_labels == label))
        if len(members) < len(fractions):
            continue
        taken = 0
        for number, fraction in list(enumerate(fractions.values()))[1:]:
            quota = max(1, round(fraction * len(members)))
            split_of[members[taken : taken + quota]] = number
            taken += quota
    return {name: np.flatnonzero(split_of[group_of] == number) for number, name in enumerate(fractions)}
