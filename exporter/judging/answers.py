"""One training of a comparison: on train, with the epoch chosen on valid, and scored on test, image by image.

Knows nothing of which networks are compared, or why.
"""

# N test images

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.batches import ImageBatches
from datasets.catalog import load_images
from datasets.store import ImageStore, StoreError
from exporter.judging.verdict import Result
from exporter.retraining.retrain import load_best, train
from exporter.retraining.trainings import Training
from foundation.files import whole_file
from foundation.text import shape_text
from searcher.running.interrupt import Interrupt
from searcher.running.jobs import Job
from searcher.running.pacing import Pace
from searcher.running.run_folder import RunError
from searcher.training.image_learner import correct_answers
from searcher.training.weights_trainer import DivergedError

_ANSWERS = "answers.npy"
_BATCH_SIZE = 250


@dataclass(frozen=True)
class Trial:
    """A training, and the images to score it on."""

    training: Training
    test_dataset: str


def train_and_answer(trial: Trial, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """Job: train, choose the epoch on valid, record which test images are classified correctly; returns the summary."""
    training = trial.training
    with training.opened() as (folder, store):
        if not folder.finished:
            assert isinstance(store, ImageStore)
            test_store = test_store_of(trial.test_dataset, like=store)
            options: dict[str, Any] = {"device": device, "interrupt": interrupt, "pace": pace}
            try:
                title = f"{folder.path.parent.name}, {folder.path.name}"
                done = train(training.spec, training.config, store=store, folder=folder, title=title, **options)
            except DivergedError:
                folder.finish({"valid_accuracy": None, "test_accuracy": None, "test_count": 0, "best_epoch": None})
            else:
                network = load_best(folder, training.spec, device=device)
                answers = _answers(network, test_store, device=device)
                with whole_file(folder.path / _ANSWERS) as temporary, open(temporary, "wb") as file:
                    np.save(file, np.packbits(answers))
                folder.finish(
                    {
                        "valid_accuracy": done.kept.value if done.kept else None,
                        "test_accuracy": float(answers.mean()),
                        "test_count": len(answers),
                        "best_epoch": done.kept_epoch,
                        "rate_scale": done.weights.rate_scale,
                        "seconds": round(folder.seconds, 1),
                    }
                )
        return folder.summary()


def _answers(network: nn.Module, store: ImageStore, *, device: torch.device) -> np.ndarray:
    """Whether each image of the test split is classified correctly: bool [N]."""
    images = ImageBatches.load(store, "test", device=device)
    batches = images.epoch(batch_size=_BATCH_SIZE, seed=0, epoch=0, shuffle=False)
    answers = [correct_answers(lambda x: network(x)[0], *batch, precision="float32") for batch in batches]
    return torch.cat(answers).cpu().numpy()


def test_store_of(dataset: str, *, like: ImageStore) -> ImageStore:
    """The images to score on, normalised like those of training. Raises: StoreError: their shape or classes differ."""
    store = load_images(dataset)
    store.require_splits()
    for what, found, wanted in (
        ("images of", shape_text(store.image_shape), shape_text(like.image_shape)),
        ("the classes", ", ".join(store.classes), ", ".join(like.classes)),
    ):
        if found != wanted:
            raise StoreError(f"--test-dataset {dataset} has {what} {found}, but {like.name} has {what} {wanted}")
    return replace(store, mean=like.mean, std=like.std)


def result_of(job: Job, summary: Mapping[str, Any]) -> Result | None:
    """The result of a training; None if it diverged. Raises: RunError: its answers are damaged."""
    score = summary["valid_accuracy"]
    if score is None or not math.isfinite(score):
        return None
    path = job.folder / _ANSWERS
    try:
        answers = np.unpackbits(np.load(path), count=summary["test_count"])
    except (OSError, ValueError):
        raise RunError(f"{path}: not the answers of a training; remove {job.folder} and go on with --resume") from None
    return Result(score, summary["best_epoch"], answers.astype(float))
