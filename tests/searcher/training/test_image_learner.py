"""What a learner of images gives: losses, scores, rewards."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.augmentation import Augmentation, AugmentationError
from datasets.store import ImageStore
from datasets.store_writer import write_image_store
from foundation.document import ConfigError
from searcher.presets.catalog import search_preset
from searcher.training.distillation import Distillation
from searcher.training.image_learner import ImageLearner, ImageTraining, classification_loss
from searcher.training.learner import Score, is_better, is_no_worse
from tests.searcher.noise import learner_of, noise_learner


@pytest.fixture
def learner(tmp_path: Path) -> ImageLearner:
    return noise_learner(tmp_path)


def test_the_auxiliary_loss_is_weighted() -> None:
    logits, auxiliary, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = nn.functional.cross_entropy
    expected = plain(logits, labels) + 0.4 * plain(auxiliary, labels)
    actual = classification_loss(logits, auxiliary, labels, training=ImageTraining(auxiliary_weight=0.4))
    torch.testing.assert_close(actual, expected)


UNEQUAL = np.array([0] * 9 + [1] * 2 + [2])


def unequal_learner(
    tmp_path: Path, labels: np.ndarray = UNEQUAL, *, distillation: Distillation | None = None, **training: Any
) -> ImageLearner:
    """All splits hold black images of these labels, of three classes."""
    chunk = (np.zeros((len(labels), 12, 12, 1), np.uint8), labels)
    write_image_store(
        tmp_path / "noise.h5",
        name="unequal",
        splits={"train": chunk, "valid": chunk, "test": chunk},
        classes=("a", "b", "c"),
        source="made up",
        licence="CC0-1.0",
    )
    settings = ImageTraining(label_smoothing=0.0, **training)
    return learner_of(tmp_path / "noise.h5", training=settings, distillation=distillation)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_always_the_largest_class_scores_a_third_in_balance(tmp_path: Path, split: str) -> None:
    largest = torch.tensor([1.0, 0.0, 0.0])
    score = unequal_learner(tmp_path).score(lambda images, **_: (largest.expand(len(images), 3), None), split)
    assert (score.value, score.balanced) == (0.75, pytest.approx(1 / 3))


def test_the_standard_error_of_a_balanced_accuracy_is_of_a_mean_over_classes(tmp_path: Path) -> None:
    """Of 4, 4 and 16 images of which 2, 1 and 4 are right."""
    labels = np.array([0] * 4 + [1] * 4 + [2] * 16)
    answers = torch.tensor([0, 0, 1, 1] + [1, 0, 0, 0] + [2] * 4 + [0] * 12)
    logits = nn.functional.one_hot(answers, 3).float()
    score = unequal_learner(tmp_path, labels).score(lambda images, **_: (logits, None), "valid")
    assert score.balanced == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)
    assert score.balanced_error == pytest.approx(math.sqrt(1 / 4 / 4 + 3 / 16 / 4 + 3 / 16 / 16) / 3)


def test_balanced_classes_have_balanced_accuracy_choose(tmp_path: Path) -> None:
    learner = unequal_learner(tmp_path, class_weights="balanced")
    assert (learner.metric, learner.criterion) == ("accuracy", "balanced_accuracy")
    largest, fair = Score(0.95, 1000, 0.2, 0.5, 0.0), Score(0.90, 1000, 0.3, 0.90, 0.02)
    assert is_better(learner.criterion, fair, largest)
    assert not is_no_worse(learner.criterion, largest, fair)
    assert is_no_worse(learner.criterion, replace(largest, balanced=0.8801), fair)
    assert not is_no_worse(learner.criterion, replace(largest, balanced=0.8799), fair)
    equal = [Score(0.9, 1000, 0.2), Score(0.8, 1000, 0.1)]  # of a split whose classes accuracy does not mislead about
    assert is_better(learner.criterion, *equal)


def test_equal_classes_need_no_balance(tmp_path: Path) -> None:
    learner = unequal_learner(tmp_path, np.arange(9) % 3)
    score = learner.score(lambda images, **_: (torch.ones(len(images), 3), None), "test")
    assert (score.value, score.balanced) == (pytest.approx(1 / 3), None)


def test_a_balanced_loss_lets_every_class_count_alike(tmp_path: Path) -> None:
    """Over the training images the weights of each class sum to the same, and to 1 an image on the mean."""
    labels = UNEQUAL
    learner = unequal_learner(tmp_path, class_weights="balanced")
    logits = torch.zeros(12, 3, requires_grad=True)
    batch = (torch.zeros(12, 1, 12, 12), torch.from_numpy(labels))
    learner.loss(lambda images, **_: (logits, None), batch, progress=0.0).loss.backward()
    assert logits.grad is not None
    pull = [logits.grad[labels == label, label].sum().item() for label in range(3)]
    assert pull == pytest.approx([pull[0]] * 3)
    assert sum(pull) == pytest.approx(-2 / 3)  # as without weights: 12 images of weight 1 on the mean


def test_smoothed_labels_leave_an_image_the_weight_of_its_class(tmp_path: Path) -> None:
    """A class's weight is that of its images, whatever part of their targets is spread over other classes."""
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(UNEQUAL)
    training = ImageTraining(label_smoothing=0.1)
    weights = torch.tensor([0.5, 2.0, 4.0])
    each = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    whole = nn.functional.one_hot(labels, 3).float()
    for of in (labels, whole):
        weighted = classification_loss(logits, None, of, training=training, class_weights=weights)
        torch.testing.assert_close(weighted, (weights[labels] * each).mean())
    # Of two images mixed equally, each class's half of the loss has its own weight.
    halves = (whole[:2] + whole[-2:]) / 2
    mixed = classification_loss(logits[:2], None, halves, training=training, class_weights=weights)
    parts = [
        classification_loss(logits[:2], None, part, training=training, class_weights=weights)
        for part in (whole[:2], whole[-2:])
    ]
    torch.testing.assert_close(mixed, (parts[0] + parts[1]) / 2)


def test_a_teacher_leaves_class_weights_and_the_auxiliary_heads_part_as_they_are(tmp_path: Path) -> None:
    answers = 5 * nn.functional.one_hot(torch.from_numpy(UNEQUAL), 3).float()[:, None]  # of one model, sure and right
    distillation = Distillation(lambda _: answers, temperature=4.0, weight=0.75)
    learner = unequal_learner(tmp_path, distillation=distillation, class_weights="balanced", auxiliary_weight=0.4)
    logits, auxiliary = (torch.zeros(12, 3, requires_grad=True) for _ in range(2))
    batch = (torch.zeros(12, 1, 12, 12), torch.from_numpy(UNEQUAL), answers)
    learner.loss(lambda images, **_: (logits, auxiliary), batch, progress=0.0).loss.backward()
    assert logits.grad is not None
    assert auxiliary.grad is not None
    pull = [logits.grad[label == UNEQUAL, label].sum().item() for label in range(3)]
    assert pull == pytest.approx([pull[0]] * 3)
    pull = [auxiliary.grad[label == UNEQUAL, label].sum().item() for label in range(3)]
    assert pull == pytest.approx([0.4 * -2 / 9] * 3)  # as without a teacher


def test_mixed_images_count_for_each_class_by_its_share(tmp_path: Path) -> None:
    training = ImageTraining(augmentation=Augmentation(mixup=1.0))
    images, shares = next(iter(noise_learner(tmp_path, training=training).batches(epoch=0, start_step=0)))
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    learner = noise_learner(tmp_path, training=ImageTraining(label_smoothing=0.1))
    found = learner.loss(lambda x, **_: (logits, None), (images, shares), progress=0.0)
    each = nn.functional.cross_entropy(logits, shares, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(found.loss, each.mean())
    labels = torch.tensor([0, 1, 2, 1])
    whole = nn.functional.one_hot(labels, 3).float()
    losses = [learner.loss(lambda x, **_: (logits, None), (images, of), progress=0.0).loss for of in (labels, whole)]
    torch.testing.assert_close(*losses)
    assert found.measured == (logits.argmax(1) == shares.argmax(1)).sum()


def test_mixing_images_of_one_class_is_refused(tmp_path: Path) -> None:
    chunk = (np.zeros((8, 12, 12, 1), np.uint8), np.zeros(8, np.int64))
    splits = {"train": chunk, "valid": chunk, "test": chunk}
    write_image_store(tmp_path / "one.h5", name="one", splits=splits, classes=("a",), source="", licence="")
    with pytest.raises(AugmentationError, match="mixup mixes images of different classes, but the data set has 1"):
        learner_of(tmp_path / "one.h5", training=ImageTraining(augmentation=Augmentation(mixup=0.2)))


def test_all_of_valid_counts_once_though_the_last_batch_reaches_back(learner: ImageLearner) -> None:
    order = np.random.default_rng(0).permutation(7)
    labels = torch.arange(7) % 3
    seen: list[int] = []

    def network(images: Tensor) -> tuple[Tensor, None]:
        numbers = order[len(seen) : len(seen) + 4] if not seen else order[3:7]
        seen.extend(numbers.tolist())
        answers = labels[torch.as_tensor(numbers)]
        answers[: 0 if len(seen) == 4 else 1] = -1  # wrong about the one that was seen before
        return nn.functional.one_hot(answers % 3, 3).float(), None

    assert learner.whole_reward(network, np.random.default_rng(0)) == 1.0
    assert seen == [*order[:4], *order[3:7]]


def test_a_split_that_is_scored_keeps_to_the_memory_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    splits = {
        split: (rng.integers(0, 256, (count, 64, 64, 1), dtype=np.uint8), np.arange(count) % 3)
        for split, count in (("train", 100), ("valid", 60), ("test", 240))
    }
    path = tmp_path / "large.h5"
    write_image_store(path, name="large", splits=splits, classes=("a", "b", "c"), source="made up", licence="CC0-1.0")
    learner = learner_of(path, memory_budget_mb=1)  # of which train and valid take two thirds
    read_whole: list[str] = []
    monkeypatch.setattr(ImageStore, "images", lambda _, split: read_whole.append(split))
    score = learner.score(lambda images, **_: (torch.tensor([1.0, 0.0, 0.0]).expand(len(images), 3), None), "test")
    assert (score.value, score.count) == (pytest.approx(1 / 3), 240)
    assert read_whole == []


def test_chance_is_the_most_frequent_class_and_three_standard_errors(learner: ImageLearner) -> None:
    # Of seven images three are of the first class; a minibatch has four.
    assert learner.chance_reward() == pytest.approx(3 / 7 + 3 * math.sqrt(3 / 7 * 4 / 7 / 7))
    assert learner.chance_reward(num_batches=1) == 1.0


def test_a_macro_search_with_what_macro_networks_have_not_is_refused_with_its_config() -> None:
    config = search_preset("macro", "quick")
    with pytest.raises(ConfigError, match=r"auxiliary_weight is 0.4, but macro networks have no auxiliary head"):
        replace(config, training=replace(config.training, auxiliary_weight=0.4))
