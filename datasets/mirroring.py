"""Finds classes whose pictures, mirrored left to right, look like another class: arrows do, trousers do not.

Training that mirrors such pictures teaches wrong labels. The test uses nearest neighbours: it counts the pictures whose
nearest neighbour is of their own class, but becomes a mirrored picture of another class once mirrored copies of all
pictures are added. Pictures that only differ from their own mirror image, such as shoes that all point one way, do not
come nearer to another class, and do no harm.
"""

# n examined pictures, H height, W width, C channels, F features

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from datasets.store import ImageStore
from foundation.seeds import numpy_generator

# Enough to find one pair among dozens of classes; takes half a second on a CPU core.
_MOST_PICTURES = 1000
_MOST_CHUNKS = 64
_PICTURE_SIDE = 32
# Fine maps distinguish details, coarse maps tolerate small shifts of them.
_MAP_SIDES = (8, 4, 2)
# Thresholds of harm minus help, in standard deviations: from the first on it is no accident, from the second certain.
_NOTABLE, _CLEAR = 3.0, 4.0
# Least harm minus help of a certain finding, as a share of the pictures of both classes.
_CLEAR_PART = 0.1


@dataclass(frozen=True)
class LookAlikes:
    """Two classes whose pictures look like mirrored pictures of each other."""

    classes: tuple[str, str]
    count: int
    """Number of examined pictures of both classes."""
    confused: int
    """Number of those whose nearest neighbour was of their own class, and is now a mirrored picture of the other."""
    is_clear: bool
    """Whether mirroring certainly does harm."""

    def __str__(self) -> str:
        one, other = self.classes
        return f"pictures of '{one}' and '{other}' look like each other's mirrored ({self.confused} of {self.count})"


def look_alikes(store: ImageStore) -> LookAlikes | None:
    """Returns the two classes of train that mirroring confuses most, or None. Examines about a thousand pictures."""
    if min(store.image_shape[:2]) < 3:  # too small to have a left and a right
        return None
    images, labels = _sample(store)
    features, mirrored = _features(images)
    among_all = features @ features.T  # [n, n] cosines
    with_mirrored = features @ mirrored.T
    for cosines in (among_all, with_mirrored):  # excludes the picture itself and its mirror image
        np.fill_diagonal(cosines, -2)
    before = labels[among_all.argmax(1)]
    is_nearer = with_mirrored.max(1) > among_all.max(1)
    after = np.where(is_nearer, labels[with_mirrored.argmax(1)], before)
    return _worst_pair(labels, before, after, classes=store.classes)


def _worst_pair(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, *, classes: tuple[str, ...]
) -> LookAlikes | None:
    """Returns the pair of classes with the most significant harm, or None.

    Args: labels: [n], the class of each picture. before, after: [n], the class of its nearest neighbour without and
        with mirrored copies.
    """
    was_right, is_right = before == labels, after == labels
    worst, most = None, _NOTABLE
    for pair in combinations(np.unique(labels[was_right & ~is_right]).tolist(), 2):
        of_pair = np.isin(labels, pair)
        harmed = int((of_pair & was_right & ~is_right & np.isin(after, pair)).sum())
        net = harmed - int((of_pair & ~was_right & is_right).sum())
        deviations = net / max(2 * harmed - net, 1) ** 0.5
        if deviations >= most:
            count, most = int(of_pair.sum()), deviations
            is_clear = deviations >= _CLEAR and net >= _CLEAR_PART * count
            worst = LookAlikes((classes[pair[0]], classes[pair[1]]), count, harmed, is_clear)
    return worst


def _sample(store: ImageStore) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures uint8 [n, H, W, C] from random chunks of train, and their labels [n]."""
    generator = numpy_generator(0, "mirroring")
    count, length = store.count("train"), store.chunk_length
    starts = generator.permutation(range(0, count, length))[:_MOST_CHUNKS]
    numbers, images = [], []
    for start in starts.tolist():
        stop = min(start + length, count)
        inside = generator.permutation(stop - start)[: -(-_MOST_PICTURES // len(starts))]
        numbers.append(start + inside)
        images.append(store.read("train", start, stop)[inside])
    return np.concatenate(images), store.labels("train")[np.concatenate(numbers)]


def _features(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of pictures and of their mirror images: unit vectors [n, F] each.

    A feature is how much brightness increases to the right, left, bottom or top in one field of a map of three sizes.
    """
    grey = _reduced(images.astype(np.float32).mean(3), _PICTURE_SIDE)
    right = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    parts = [np.maximum(part, 0) for part in (right, -right, down, -down)]
    features, mirrored = [], []
    for side in _MAP_SIDES:
        maps = np.stack([np.sqrt(_reduced(part, side)) for part in parts], axis=1)  # [n, 4, side, side]
        features.append(_unit(maps))
        mirrored.append(_unit(maps[:, [1, 0, 2, 3], :, ::-1]))
    scale = len(_MAP_SIDES) ** -0.5
    return scale * np.concatenate(features, axis=1), scale * np.concatenate(mirrored, axis=1)


def _reduced(maps: np.ndarray, side: int) -> np.ndarray:
    """Means over areas: [n, H, W] -> [n, at most side, at most side]."""
    for axis in (1, 2):
        length = maps.shape[axis]
        if length > side:
            edges = np.linspace(0, length, side + 1).astype(int)
            maps = np.add.reduceat(maps, edges[:-1], axis=axis) / np.diff(edges).reshape(-1, *[1] * (2 - axis))
    return maps


def _unit(maps: np.ndarray) -> np.ndarray:
    vectors = maps.reshape(len(maps), -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return unit
