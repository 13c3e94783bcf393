"""The findings of an import that a user should know before training on their own pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foundation.file_tree import Problem
from foundation.text import printable

# H W C an image


@dataclass
class ImportReport:
    """The findings of an import, for the user to read."""

    counts: dict[str, int] = field(default_factory=dict)
    """Images written of each split."""
    unreadable: list[Problem] = field(default_factory=list)
    """Files left out, each with the reason."""
    passed_over: list[Problem] = field(default_factory=list)
    """Files and folders that are in no class, or cannot be opened, each with the reason."""
    remarks: list[Problem] = field(default_factory=list)
    """Files whose images differ from the stored pictures, each with the difference."""
    copies: list[list[str]] = field(default_factory=list)
    """Groups of files with equal bytes."""
    two_labels: list[list[str]] = field(default_factory=list)
    """The groups of `copies` that are in several classes; each file with its class."""
    leaked: list[tuple[str, str]] = field(default_factory=list)
    """Files of a given split whose bytes are also in an earlier split, each with the file there."""
    doubtful: list[str] = field(default_factory=list)
    """Problems of whole classes: constant pictures, equal pictures, splits without any."""


@dataclass
class Looks:
    """Statistics of the images of one class."""

    count: int = 0
    constant: int = 0
    """Images of a single colour."""
    different: set[bytes] = field(default_factory=set)
    """A digest of each different image."""

    def add(self, image: np.ndarray) -> None:
        """image: uint8 [H, W, C]."""
        self.count += 1
        self.constant += int((image == image[0, 0]).all())
        self.different.add(hashlib.blake2b(image.tobytes(), digest_size=16).digest())


def doubts(looks: Mapping[int, Looks], classes: Sequence[str]) -> list[str]:
    """Returns a line for each class with constant or equal images. looks: index of a class -> its images."""
    lines = []
    for label in sorted(looks):
        look, name = looks[label], f"class '{printable(classes[label])}'"
        if look.constant:
            lines.append(f"{name}: {look.constant} of {look.count} pictures are of one colour all over")
        if equal := look.count - len(look.different):
            lines.append(f"{name}: {equal} of {look.count} pictures look exactly like another of them")
    return lines


def lacking(labels: Mapping[str, Sequence[int]], classes: Sequence[str]) -> list[str]:
    """Returns a line for each class missing in a split, rarest first. labels: split -> the class of each picture."""
    counts = {split: np.bincount(members, minlength=len(classes)) for split, members in labels.items()}
    total = np.sum(list(counts.values()), axis=0)
    lines = []
    for label in np.argsort(total, kind="stable").tolist():
        without = [split for split, count in counts.items() if count[label] == 0]
        if without:
            lines.append(
                f"class '{printable(classes[label])}': none of its {total[label]} pictures is in "
                f"{' or '.join(without)}, whose accuracy says nothing of it"
            )
    return lines
