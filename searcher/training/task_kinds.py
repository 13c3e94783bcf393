"""The learner, settings and data of each kind of task."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from datasets.catalog import check_is_here, load_images, load_text
from datasets.store import ImageStore, TextStore
from foundation.document import ConfigError
from searcher.arch.space import space_module
from searcher.arch.spec import Spec
from searcher.arch.tasks import (
    IMAGE_CLASSIFICATION,
    LANGUAGE_MODELLING,
    ImageClassification,
    LanguageModelling,
    Task,
)
from searcher.training.image_learner import ImageLearner, ImageTraining
from searcher.training.learner import Learner
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.text_learner import TextLearner, TextTraining

Store = ImageStore | TextStore
Training = ImageTraining | TextTraining


class _Kind(NamedTuple):
    training: type[ImageTraining] | type[TextTraining]
    learner: type[Any]


_KINDS = {
    IMAGE_CLASSIFICATION: _Kind(ImageTraining, ImageLearner),
    LANGUAGE_MODELLING: _Kind(TextTraining, TextLearner),
}


def training_type(space: str) -> type[ImageTraining] | type[TextTraining]:
    """The settings class of a space's kind of task. Raises: ArchitectureError: there is no such space."""
    return _KINDS[space_module(space).TASK_KIND].training


def check_training(space: str, training: Training) -> None:
    """Raises: ConfigError: the networks of a space lack a part that the training would use."""
    for name, missing in space_module(space).LACKS.items():
        if getattr(training, name) > 0:
            raise ConfigError(f"{name} is {getattr(training, name)}, but {space} networks have no {missing}")


def check_steps(sgd: SgdConfig, training: Training, *, batch_size: int) -> None:
    """Raises: ConfigError: the optimiser's settings do not suit the batch size or the task."""
    if batch_size % sgd.accumulation:
        raise ConfigError(f"accumulation is {sgd.accumulation}, which does not divide batch_size, {batch_size}")
    if isinstance(training, ImageTraining) and batch_size == sgd.accumulation:
        # A single image with a map of one pixel has no batch statistics.
        raise ConfigError(
            f"accumulation is {sgd.accumulation} and batch_size {batch_size}; a part of a batch must have two images "
            "at least, for batch norm"
        )
    if isinstance(training, TextTraining) and (sgd.accumulation > 1 or sgd.sharpness):
        # A text's state is carried from window to window, and every pass advances it.
        raise ConfigError("accumulation and sharpness are for images; a text's steps are taken whole, and once")
    if isinstance(training, TextTraining) and sgd.optimizer == "muon":
        raise ConfigError("muon is for convolutions, which networks for text have none of")


def check_images(training: Training, store: Store) -> None:
    """Raises: AugmentationError: the training's augmentation does not suit the store's images."""
    if isinstance(training, ImageTraining) and isinstance(store, ImageStore):
        training.augmentation.check(image_shape=store.image_shape, num_classes=len(store.classes))


def make_learner(task: Task, training: Training, **options: Any) -> Learner:
    """The learner of a task. options: see `ImageLearner` and `TextLearner`, whose options are the same."""
    return _KINDS[task.kind].learner(training, **options)


def load_store(dataset: str, *, space: str) -> Store:
    """The data set of that name or path, which must be of the space's kind.

    Raises: StoreError: there is none, it is damaged or of another kind, or it lacks a split.
    """
    store = (load_images if space_module(space).TASK_KIND == IMAGE_CLASSIFICATION else load_text)(dataset)
    store.require_splits()
    return store


def load_store_of(spec: Spec, *, named_by: str = "the spec is for") -> Store:
    """The data set that a spec names. Raises: StoreError: as `load_store`, or it is missing, see `check_is_here`."""
    check_is_here(spec.task.dataset, named_by=named_by)
    return load_store(spec.task.dataset, space=spec.space)


def task_of(store: Store, *, dataset: str) -> Task:
    """Returns the task that a store's data define. Raises: ConfigError: they define no valid task."""
    if isinstance(store, ImageStore):
        return ImageClassification(dataset=dataset, input_shape=store.image_shape, classes=store.classes)
    tokens: Literal["word", "char"] = "char" if store.tokens == "char" else "word"
    return LanguageModelling(dataset=dataset, tokens=tokens, vocabulary_size=len(store.vocabulary))
