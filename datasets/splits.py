"""Assigns examples to splits (seeded, stratified by class, identical images together), and recognises names of splits.

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
"""Usual names of each split. Source: the keywords of Hugging Face's image folders, and a few more."""
_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}
_NAME = re.compile(rf"({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(?:[ _-]?(?:set|data|images|imgs|split))?")


def split_called(name: str) -> str | None:
    """Returns the split with that usual name, in upper or lower case, or None: `Training`, `val`, `test_set`."""
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

    The unit is a group: all its members go into one split, under the class of the first member, and proportions count
    groups. The first split takes the remainder; a class with fewer groups than splits goes entirely to the first.

    Args: labels: [N], class of each example. fractions: the fraction of each split, summing to 1, train first.
        groups: [N], equal numbers for examples that must stay together; by default each example is its own group.
    Returns: ascending indices of each split.
    """
    if groups is None:
        groups = np.arange(len(labels))
    _, first_member, group_of = np.unique(groups, return_index=True, return_inverse=True)
    group_labels = labels[first_member]
    split_of = np.zeros(len(first_member), np.int64)
    for label in np.unique(group_labels):
        # One random stream per class: more examples of one class do not move those of the others.
        members = numpy_generator(seed, "split", int(label)).permutation(np.flatnonzero(group_labels == label))
        if len(members) < len(fractions):
            continue
        taken = 0
        for number, fraction in list(enumerate(fractions.values()))[1:]:
            quota = max(1, round(fraction * len(members)))
            split_of[members[taken : taken + quota]] = number
            taken += quota
    return {name: np.flatnonzero(split_of[group_of] == number) for number, name in enumerate(fractions)}
