"""Learning to classify images: cross entropy on augmented batches, scored by accuracy."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.augmentation import Augmentation
from datasets.batches import ImageBatches
from datasets.store import ImageStore
from foundation import balance
from foundation.document import ConfigError
from foundation.seeds import numpy_generator
from searcher.running.device import Precision, computing, products_precision
from searcher.running.distributed import ALONE, World
from searcher.training.distillation import Distillation
from searcher.training.learner import BALANCED, Half, Network, Score, StepLoss

_VALID_SHARE = 4
_EVALUATION_BATCH_SIZE = 250


@dataclass(frozen=True)
class ImageTraining:
    """Settings of training on images: augmentation, losses and regularisation."""

    augmentation: Augmentation = Augmentation()  # noqa: RUF009 - frozen, so one serves all
    """Applied to training images."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary head's loss; 0 builds no head. Authors' code: 0.4."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1)."""
    dropout_prob: float = 0.0
    """Before the classifier. Authors' code: 0.1 in the search, 0.2 in the final network."""
    drop_path_prob: float = 0.0
    """Of the last cell at the end of training; it rises linearly over cells and steps. Authors' code: 0.4 in the final
    network."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of images in the loss. balanced: inversely proportional to the class's share of train, 1 on average, so
    that rare classes are learnt as well as frequent ones, and the epoch is chosen by balanced accuracy; accuracy may
    fall while balanced accuracy rises."""

    def __post_init__(self) -> None:
        if not self.auxiliary_weight >= 0:
            raise ConfigError(f"auxiliary_weight is {self.auxiliary_weight}; it must not be negative")
        for name in ("label_smoothing", "dropout_prob", "drop_path_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 up to, not including, 1")


class ImageLearner:
    """Learns to classify a store's images. A batch is images [B, C, H, W], labels [B], or class shares [B, K] if images
    are mixed, and a teacher's answers [B, M, K], if there is one. A reward is an accuracy in [0, 1].

    Networks return logits [B, K] and the auxiliary head's logits, or None.
    """

    metric = "accuracy"

    def __init__(
        self,
        training: ImageTraining,
        *,
        store: ImageStore,
        train_on: str,
        batch_size: int,
        reward_batch_size: int,
        seed: int,
        device: torch.device,
        memory_budget_mb: int,
        precision: Precision,
        world: World = ALONE,
        distillation: Distillation | None = None,
    ) -> None:
        """Loads train and valid onto the device; a split that exceeds its share of the budget streams from the store.

        Raises: StoreError: the store has no such split, or is damaged. ConfigError: a batch has no image for some rank.
        AugmentationError: the augmentation does not suit the store's images.
        """
        training.augmentation.check(image_shape=store.image_shape, num_classes=len(store.classes))
        self._training = training
        self._store = store
        self._seed = seed
        self._device = device
        self._precision = products_precision(device, precision)
        self._world = world
        self._distillation = distillation
        budget = memory_budget_mb << 20
        for_valid = min(store.nbytes("valid"), budget // _VALID_SHARE)
        for_train = min(store.nbytes(train_on), budget - for_valid)
        self._budget_left = max(budget - for_valid - for_train, 1)  # for another split that is scored
        self._train = ImageBatches.load(store, train_on, device=device, memory_budget_bytes=budget - for_valid)
        self._valid = ImageBatches.load(store, "valid", device=device, memory_budget_bytes=max(for_valid, 1))
        self._class_weights: Tensor | None = None
        self.criterion = self.metric if training.class_weights == "none" else BALANCED
        if training.class_weights == "balanced":
            counts = np.bincount(store.labels(train_on), minlength=len(store.classes))
            balanced = counts.sum() / (len(counts) * np.maximum(counts, 1))
            self._class_weights = torch.tensor(balanced, dtype=torch.float32, device=device)  # [classes]
        self._batch_size = batch_size
        if min(batch_size, self._train.num_images) < world.size:
            raise ConfigError(f"batch_size is {batch_size}; each of the {world.size} processes needs an image of it")
        self._reward_batch_size = min(reward_batch_size, self._valid.num_images)
        # Norms need batches of one size; a data set smaller than a batch is a single, smaller batch.
        self._drop_last = self._train.num_images >= batch_size
        self.steps_per_epoch = self._train.num_steps(batch_size, drop_last=self._drop_last)
        self.network_options: dict[str, Any] = {
            "dropout_prob": training.dropout_prob,
            "auxiliary": training.auxiliary_weight > 0,
        }

    def batches(self, *, epoch: int, start_step: int) -> Iterator[tuple[Tensor, ...]]:
        """Yields this rank's part of each training batch of an epoch, from `start_step` on."""
        which: dict[str, Any] = {
            "batch_size": self._batch_size,
            "seed": self._seed,
            "epoch": epoch,
            "drop_last": self._drop_last,
        }
        augmentation, teacher = self._training.augmentation, self._distillation
        order = None
        if teacher is not None and augmentation.changes_nothing and teacher.keep(self._train):
            order = self._train.order(**which)
        batches = self._train.epoch(**which, augmentation=augmentation, start_step=start_step)
        for step, (images, labels) in enumerate(batches, start_step):
            part = self._world.part(len(labels))
            images, labels = images[part], labels[part]
            if teacher is None:
                yield images, labels
            else:
                numbers = None if order is None else order[step * self._batch_size :][part]
                yield images, labels, teacher.answers(images, numbers)

    def loss(self, network: Network, batch: tuple[Tensor, ...], *, progress: float) -> StepLoss:
        """Returns the loss of a batch, see `classification_loss`."""
        images, labels, *answers = batch
        with computing(self._device, self._precision):
            logits, auxiliary_logits = network(images, drop_path_prob=self._training.drop_path_prob * progress)
        loss = classification_loss(
            logits,
            auxiliary_logits,
            labels,
            training=self._training,
            class_weights=self._class_weights,
            distillation=self._distillation,
            answers=answers[0] if answers else None,
        )
        shown = labels if labels.ndim == 1 else labels.argmax(1)
        correct = (logits.detach().argmax(1) == shown).sum()
        return StepLoss(loss, correct, len(labels))

    def record(self, mean_loss: float, mean_measured: float) -> dict[str, float]:
        """An epoch's training figures by name."""
        return {"loss": mean_loss, "train_accuracy": mean_measured}

    def norm_batches(self, generator: np.random.Generator, *, count: int) -> list[tuple[Tensor, Tensor]]:
        """Returns this rank's part of random training batches, about `count` images in total, not augmented."""
        num_images, size = self._train.num_images, min(self._batch_size, self._train.num_images)
        part = self._world.part(size)
        numbers = generator.permutation(num_images)[: max(1, min(count, num_images) // size) * size]
        images, labels = self._train.batch(numbers)  # in one call, so that a streaming store reads each chunk once
        parts = [slice(start + part.start, start + part.stop) for start in range(0, len(numbers), size)]
        return [(images[part], labels[part]) for part in parts]

    def state(self) -> dict[str, Any]:
        """Nothing is carried from step to step."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """See `state`."""

    def reward_batch(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random minibatch of valid, not augmented."""
        numbers = generator.choice(self._valid.num_images, self._reward_batch_size, replace=False)
        return self._valid.batch(numbers)

    def reward_batches(self, generator: np.random.Generator, *, count: int) -> list[tuple[Tensor, Tensor]]:
        """`count` different minibatches of valid, or as many as there are."""
        size = self._reward_batch_size
        order = generator.permutation(self._valid.num_images)
        stops = range(size, min(count * size, self._valid.num_images) + 1, size)
        return [self._valid.batch(order[stop - size : stop]) for stop in stops]

    def reward(self, network: Network, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Accuracy with the shared weights: scalar. Nothing is dropped; norms use a minibatch's statistics."""
        return torch.cat([self._correct(network, *batch) for batch in batches]).float().mean()

    def whole_reward(self, network: Network, generator: np.random.Generator, *, half: Half | None = None) -> float:
        """Accuracy on all of valid, or a half, in shuffled batches of one size, since norms use a batch's statistics.

        The last batch is filled up with images of the batch before, which are not counted again.
        """
        order = generator.permutation(_numbers(self._valid.num_images, half))
        size = min(self._reward_batch_size, len(order))
        answers = []
        for start in range(0, len(order), size):
            stop = min(start + size, len(order))
            batch = self._valid.batch(order[stop - size : stop])
            answers.append(self._correct(network, *batch)[start - stop :])
        return torch.cat(answers).double().mean().item()

    def chance_reward(self, *, num_batches: int | None = None) -> float:
        """Returns the accuracy of always answering the most frequent class, plus three standard errors for luck."""
        counts = np.bincount(self._store.labels("valid"))
        part, num_images = counts.max() / counts.sum(), counts.sum()
        if num_batches is not None:
            num_images = min(num_images, num_batches * self._reward_batch_size)
        return min(1.0, float(part + 3 * math.sqrt(part * (1 - part) / num_images)))

    def score(self, network: Network, split: str, *, half: Half | None = None) -> Score:
        """Returns the score on a whole split, or a half, in full float32. The network must be in evaluation mode.

        The ranks divide the batches among themselves.
        """
        images = self._valid
        if split != "valid":
            left = self._budget_left
            images = ImageBatches.load(self._store, split, device=self._device, memory_budget_bytes=left)
        if half is None:
            count = images.num_images
            batches = images.epoch(batch_size=_EVALUATION_BATCH_SIZE, seed=0, epoch=0, shuffle=False)
        else:
            numbers = _numbers(images.num_images, half)
            count = len(numbers)
            starts = range(0, count, _EVALUATION_BATCH_SIZE)
            batches = (images.batch(numbers[start : start + _EVALUATION_BATCH_SIZE]) for start in starts)
        num_classes = len(self._store.classes)
        sums = torch.zeros(2 * num_classes + 1, dtype=torch.float64, device=self._device)
        for batch in islice(batches, self._world.rank, None, self._world.size):
            sums += _answer_sums(network, *batch, label_smoothing=self._training.label_smoothing)
        *sums_of_classes, loss = self._world.sum(sums).tolist()
        hits, counts = sums_of_classes[:num_classes], sums_of_classes[num_classes:]
        score = Score(sum(hits) / count, count, loss / count)
        if not balance.is_unequal(counts):
            return score
        balanced, error = balance.balanced_accuracy(hits, counts), balance.balanced_error(hits, counts)
        return replace(score, balanced=balanced, balanced_error=error)

    def _correct(self, network: Network, images: Tensor, labels: Tensor) -> Tensor:
        return correct_answers(lambda x: network(x)[0], images, labels, precision=self._precision)


def _numbers(count: int, half: Half | None) -> np.ndarray:
    """Returns the image numbers of a split, or of a random half, which mixes the classes whatever their order."""
    if half is None:
        return np.arange(count)
    order = numpy_generator(0, "halves").permutation(count)
    return np.sort(order[: count // 2] if half == "first" else order[count // 2 :])


def classification_loss(
    logits: Tensor,
    auxiliary_logits: Tensor | None,
    labels: Tensor,
    *,
    training: ImageTraining,
    class_weights: Tensor | None = None,
    distillation: Distillation | None = None,
    answers: Tensor | None = None,
) -> Tensor:
    """Returns the cross entropy of logits [B, K], mixed with a teacher's loss, plus the weighted auxiliary one: scalar.

    labels: int64 [B], or class shares, float [B, K]. class_weights: [K], weight of an image of each class.
    answers: the teacher's, [B, M, K]; if None, only the labels are learnt from.
    """
    image_weights = None  # [B, K], each class's part of the image's weight
    if class_weights is not None:
        image_weights = class_weights * (labels if labels.ndim == 2 else functional.one_hot(labels, logits.shape[1]))

    def cross_entropy(of: Tensor) -> Tensor:
        smoothing = training.label_smoothing
        if image_weights is None:
            return functional.cross_entropy(of.float(), labels, label_smoothing=smoothing)
        # Not torch's own weights: they would weight the smoothed part of a frequent class's target by the rare classes,
        # whose logits would then be its highest. And torch divides by the batch's weights, so that a batch of one rare
        # class would count no more than any other.
        log_probs = of.float().log_softmax(1)
        of_labels, of_all = (image_weights * log_probs).sum(1), image_weights.sum(1) * log_probs.mean(1)
        return -((1 - smoothing) * of_labels + smoothing * of_all).mean()

    loss = cross_entropy(logits)
    if distillation is not None and answers is not None:
        weights = None if image_weights is None else image_weights.sum(1)
        taught = distillation.loss(logits, answers, image_weights=weights)
        loss = (1 - distillation.weight) * loss + distillation.weight * taught
    return loss if auxiliary_logits is None else loss + training.auxiliary_weight * cross_entropy(auxiliary_logits)


@torch.inference_mode()
def _answer_sums(network: Network, images: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
    """Returns correct answers per class in full float32, images per class, and the summed loss: [2K + 1].

    The loss has training's label smoothing, without which the more confident answers of the first epochs would seem
    best; it has neither class weights nor the auxiliary head's loss.
    """
    with computing(images.device, "float32"):
        logits, _ = network(images)
    shown = functional.one_hot(labels, logits.shape[1])  # [B, K]
    hits = shown * (logits.argmax(1) == labels)[:, None]
    loss = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="sum")
    return torch.cat([hits.sum(0).double(), shown.sum(0).double(), loss.double()[None]])


@torch.inference_mode()
def correct_answers(
    forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, precision: Precision = "auto"
) -> Tensor:
    """Returns whether each image's largest logit is its label's: bool [B]."""
    with computing(images.device, precision):
        return forward(images).argmax(1) == labels
