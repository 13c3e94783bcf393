"""The task of a network: the `task` section of a spec, one dataclass for each kind of task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundation.document import ConfigError

IMAGE_CLASSIFICATION: Literal["image-classification"] = "image-classification"
LANGUAGE_MODELLING: Literal["language-modelling"] = "language-modelling"


@dataclass(frozen=True, kw_only=True)
class ImageClassification:
    """Predicts which of several classes a picture shows."""

    dataset: str
    """A data set's name, or the path of a store."""
    kind: Literal["image-classification"] = IMAGE_CLASSIFICATION
    input_shape: tuple[int, ...]
    """Height, width, channels."""
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise ConfigError(f"input_shape is {list(self.input_shape)}; expected [height, width, channels]")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes must name at least two different classes")


@dataclass(frozen=True, kw_only=True)
class LanguageModelling:
    """Predicts the next token of a text."""

    dataset: str
    """A data set's name, or the path of a store."""
    kind: Literal["language-modelling"] = LANGUAGE_MODELLING
    tokens: Literal["word", "char"]
    """The kind of token: a word, however the text was split into words, or a character."""
    vocabulary_size: int
    """Number of different tokens; the tokens themselves stay in the data set's store."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < 2:
            raise ConfigError(f"vocabulary_size is {self.vocabulary_size}; at least 2 are needed")


Task = ImageClassification | LanguageModelling


def image_size_of(task: Task) -> int | None:
    """The longer side of a task's images, in pixels; None if there are no images."""
    return max(task.input_shape[:2]) if isinstance(task, ImageClassification) else None


TASKS: dict[str, type[ImageClassification] | type[LanguageModelling]] = {
    IMAGE_CLASSIFICATION: ImageClassification,
    LANGUAGE_MODELLING: LanguageModelling,
}
