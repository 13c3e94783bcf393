"""What an import found out about a person's pictures that they should know before they train on them."""

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
    """What an import found, for the person to read."""

    counts: dict[str, int] = field(default_factory=dict)
    """Images written of each split."""
    unreadable: list[Problem] = field(default_factory=list)
    """Files left out, each with the reason."""
    passed_over: list[Problem] = field(default_factory=list)
    """Files and folders that are in no class, or that nobody can look into, each with the reason."""
    remarks: list[Problem] = field(default_factory=list)
    """Files that are shown otherwise than they are stored, each with how."""
    copies: list[list[str]] = field(default_factory=list)
    """Files of equal bytes, as groups; each says its class where there are several."""
    two_labels: list[list[str]] = field(default_factory=list)
    """Those of `copies` that are in several classes."""
    leaked: list[tuple[str, str]] = field(default_factory=list)
    """Files of one given split whose bytes stand in an earlier one too."""
    doubtful: list[str] = field(default_factory=list)
    """What is odd about whole classes: constant pictures, equal ones, splits that lack them."""


@dataclass
class Looks:
    """What the images of one class look like."""

    count: int = 0
    constant: int = 0
    """Images of one colour all over."""
    different: set[bytes] = field(default_factory=set)
    """A digest of each different image."""

    def add(self, image: np.ndarray) -> None:
        """image: uint8 [H, W, C]."""
        self.count += 1
        self.constant += int((image == image[0, 0]).all())
        self.different.add(hashlib.blake2b(image.tobytes(), digest_size=16).digest())


def doubts(looks: Mapping[int, Looks], classes: Sequence[str]) -> list[str]:
    """Classes that hold constant or equal images. looks: class's place -> its images."""
    lines = []
    for label in sorted(looks):
        look, name = looks[label], f"class '{printable(classes[label])}'"
        if look.constant:
            lines.append(f"{name}: {look.constant} of {look.count} pictures are of one colour all over")
        if equal := look.count - len(look.different):
            lines.append(f"{name}: {equal} of {look.count} pictures look exactly like another of them")
    return lines


def lacking(labels: Mapping[str, Sequence[int]], classes: Sequence[str]) -> list[str]:
    """Classes that some split has no picture of, the rarest first. labels: split -> the class of each picture."""
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
