"""Accuracy of an exported model on a split of a data set store, scored in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from foundation import balance, statistics
from foundation.statistics import Estimate
from runtime.models.model import Model
from runtime.scoring.calibration import Calibration

if TYPE_CHECKING:
    from datasets.store import ImageStore

# N images, H height, W width, C channels, K classes


class EvaluationError(ValueError):
    """A model cannot be scored on a data set."""


@dataclass(frozen=True)
class ClassScore:
    name: str
    count: int
    recall: float | None
    """Share of this class's images that were recognised; None without an image."""
    precision: float | None
    """Share of the images predicted as this class that belong to it; None without such a prediction."""


@dataclass(frozen=True)
class Evaluation:
    classes: tuple[str, ...]
    confusion: np.ndarray
    """[K, K] int64: row the label, column the predicted class."""
    calibration: Calibration

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> Estimate:
        return statistics.share(self.correct, self.count)

    @property
    def per_class(self) -> list[ClassScore]:
        hits = np.diag(self.confusion)
        labelled, said = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            ClassScore(
                name,
                int(labelled[k]),
                float(hits[k] / labelled[k]) if labelled[k] else None,
                float(hits[k] / said[k]) if said[k] else None,
            )
            for k, name in enumerate(self.classes)
        ]

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes that have images, so that each of them counts equally."""
        return balance.balanced_accuracy(np.diag(self.confusion).tolist(), self.confusion.sum(axis=1).tolist())

    @property
    def absent(self) -> list[str]:
        """Classes without an image, about which the scores contain nothing."""
        return [score.name for score in self.per_class if score.count == 0]

    @property
    def is_unequal(self) -> bool:
        """Whether a class has so many more images than another that accuracy mostly describes the larger class."""
        return balance.is_unequal(self.confusion.sum(axis=1).tolist())

    @property
    def mistakes(self) -> list[list[tuple[str, int]]]:
        """For every class, the wrong predictions for its images with their counts, the most frequent first."""
        return [
            [(self.classes[k], int(row[k])) for k in np.argsort(-row, kind="stable") if k != label and row[k] > 0]
            for label, row in enumerate(self.confusion)
        ]


def evaluate(
    model: Model,
    *,
    store: ImageStore,
    split: str,
    batch_size: int,
    advance: Callable[[int], object] = lambda num_images: None,
) -> Evaluation:
    """Score `model` on a split.

    Args: advance: called with the number of images after every batch, for a progress bar.
    Raises: EvaluationError: the store's images or classes are not the model's, the split is empty, or a logit is not
        finite.
    """
    _check_match(model, store)
    labels = store.labels(split)
    if len(labels) == 0:
        raise EvaluationError(f"{store.name}: the split {split!r} holds no image")
    confusion = np.zeros((len(model.classes), len(model.classes)), dtype=np.int64)
    confidences, hits = np.empty(len(labels)), np.empty(len(labels), dtype=bool)
    for start, images in _batches(store, split, batch_size=batch_size):
        logits, probabilities = model.predict(images)
        if not np.isfinite(logits).all():
            raise EvaluationError(f"{model.path}: a logit is not finite in images {start} to {start + len(images) - 1}")
        batch, said = slice(start, start + len(images)), logits.argmax(axis=1)
        np.add.at(confusion, (labels[batch], said), 1)
        confidences[batch], hits[batch] = probabilities.max(axis=1), labels[batch] == said
        advance(len(images))
    return Evaluation(model.classes, confusion, Calibration.of(confidences, hits))


def _batches(store: ImageStore, split: str, *, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the index of the first image and the images of every batch; reads about one compressed chunk at a time."""
    piece = batch_size * math.ceil(store.chunk_length / batch_size)
    for offset in range(0, store.counts[split], piece):
        images = store.read(split, offset, min(offset + piece, store.counts[split]))
        for start in range(0, len(images), batch_size):
            yield offset + start, images[start : start + batch_size]


def _check_match(model: Model, store: ImageStore) -> None:
    if tuple(store.image_shape) != model.image_shape:
        theirs, ours = (" × ".join(map(str, shape)) for shape in (store.image_shape, model.image_shape))
        raise EvaluationError(f"{store.name}: images are {theirs}, but {model.path} takes {ours}")
    if tuple(store.classes) != model.classes:
        difference = first_difference(store.classes, model.classes, noun="class", path=model.path)
        raise EvaluationError(f"{store.name}: {difference}")


def first_difference(theirs: Sequence[str], ours: Sequence[str], *, noun: Literal["class", "token"], path: Path) -> str:
    """Describes the first difference between the names of a store, `theirs`, and of the model at `path`, `ours`."""
    if len(theirs) != len(ours):
        plural = {"class": "classes", "token": "tokens"}[noun]
        return f"{len(theirs):,} {plural}, but {path} knows {len(ours):,}"
    index = next(index for index, (their, our) in enumerate(zip(theirs, ours, strict=True)) if their != our)
    return f"{noun} {index} is {theirs[index]!r}, but {path} knows it as {ours[index]!r}"
