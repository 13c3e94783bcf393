"""Retrainings as jobs for `run_jobs`, each in its own run folder, as rankings and comparisons need them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.store import StoreError
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retrain import retrain, train
from exporter.retraining.retraining import Retraining
from searcher.arch.spec import Spec, spec_digest, write_spec
from searcher.running.device import torch_threads
from searcher.running.interrupt import Interrupt
from searcher.running.jobs import Job
from searcher.running.metrics import read_metrics
from searcher.running.pacing import Pace
from searcher.running.run_folder import START_ANEW, Opening, RunError, RunFolder
from searcher.training.learner import BALANCED, measured
from searcher.training.task_kinds import Store, load_store
from searcher.training.weights_trainer import DivergedError

# A job restarted by a cluster may find its predecessor still writing its last checkpoint.
_WAIT_FOR_LOCK_S = 30.0
# The workers of a killed run hold the lock until they notice, which a busy disk may delay by seconds.
_WAIT_FOR_ORPHANS_S = 15.0


@dataclass(frozen=True)
class Training:
    """A retraining: the network, how and where it is trained."""

    spec: Spec
    config: RetrainConfig
    path: Path
    """The run folder."""
    dataset: str
    """A data set's name or path, as every process finds it."""

    @contextmanager
    def opened(self, *, is_one_of_many: bool = True) -> Iterator[tuple[RunFolder, Store]]:
        """Opens the run folder, to resume in, and the data; inside, torch computes with the configuration's threads.

        is_one_of_many: if it is damaged, the others are worth keeping, which --force would delete.
        Raises: StoreError: the data have changed since the training began. RunError: see `RunFolder.open`.
        """
        cure = f"remove {self.path} and go on with --resume" if is_one_of_many else START_ANEW
        opened = RunFolder.open(self.path, self.config, Opening(resume=True), wait_s=_WAIT_FOR_LOCK_S, cure=cure)
        with closing(opened) as folder, torch_threads(self.config.threads):
            store = load_store(self.dataset, space=self.spec.space)
            if store.digest != self.config.dataset_sha256:
                raise StoreError(f"the data set {self.dataset} is no longer the one of the training in {self.path}")
            yield folder, store


def begin_training(
    title: str,
    spec: Spec,
    config: RetrainConfig,
    *,
    path: Path,
    store: Store,
    opening: Opening,
) -> Job:
    """Returns the job that trains a spec in a run folder, which is created or resumed.

    Args: config: its digests are filled in. store: the data set of the spec's task.
    Raises: RunError: see `RunFolder.open`.
    """
    config = replace(config, spec_sha256=spec_digest(spec), dataset_sha256=store.digest)
    path = path.absolute()
    with closing(RunFolder.open(path, config, opening, wait_s=_WAIT_FOR_ORPHANS_S)):
        # Written at once: a run without a search has no other copy, and `force` has removed this one.
        write_spec(path / "spec.json", spec)
    dataset = spec.task.dataset
    # A path may be relative to a folder that the workers of a cluster do not run in.
    if dataset.endswith(".h5") or "/" in dataset:
        dataset = str(Path(dataset).absolute())
    return Job(title, path, config.num_epochs, Training(spec, config, path, dataset))


def retrain_job(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """Job: `retrain`, or the rest of it; returns the summary. Raises: as `retrain` and `Training.opened`."""
    with training.opened(is_one_of_many=False) as (folder, store):
        if folder.finished:
            return folder.summary()
        return retrain(
            training.spec,
            training.config,
            store=store,
            folder=folder,
            device=device,
            interrupt=interrupt,
            pace=pace,
        )


def validate_job(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """Job: trains; the summary has the score of the epoch chosen on valid, see `score_job`."""
    return score_job(training, _best_score, device=device, interrupt=interrupt, pace=pace)


def score_job(
    training: Training,
    score_of: Callable[[Retraining], float],
    *,
    device: torch.device,
    interrupt: Interrupt,
    pace: Pace,
) -> dict[str, Any]:
    """Train, or resume, without using test.

    Args: score_of: computes the score of a finished training.
    Returns: the summary: `valid_score`, None if it is not finite; `valid_error`, the standard error of a balanced
    accuracy; and from the last epoch `train_loss`, in nats, and `train_accuracy`, None for text. All are None if the
    training diverged.
    Raises: as `train` and `Training.opened`, except DivergedError.
    """
    with training.opened() as (folder, store):
        if not folder.finished:
            options: dict[str, Any] = {"device": device, "interrupt": interrupt, "pace": pace}
            title = f"{folder.path.parent.name}, {folder.path.name}"
            try:
                done = train(training.spec, training.config, store=store, folder=folder, title=title, **options)
            except DivergedError:
                none = dict.fromkeys(["valid_score", "train_loss", "train_accuracy", "best_epoch"])
                folder.finish({**none, "rate_scale": 0.0})
            else:
                score, last = score_of(done), _last_record(folder.path)
                folder.finish(
                    {
                        "valid_score": score if math.isfinite(score) else None,
                        "valid_error": _error(done),
                        "train_loss": last["loss"],
                        "train_accuracy": last.get("train_accuracy"),
                        "rate_scale": done.weights.rate_scale,
                        "best_epoch": done.kept_epoch,
                    }
                )
        return folder.summary()


def _last_record(folder: Path) -> dict[str, Any]:
    """The metrics of the last epoch. Raises: RunError: the metrics have been lost since a checkpoint."""
    records = read_metrics(folder / "metrics.jsonl")
    if not records:
        raise RunError(f"{folder}: its metrics are gone; remove that folder, and go on with --resume")
    return records[-1]


def _best_score(done: Retraining) -> float:
    return measured(done.learner.criterion, done.kept) if done.kept else math.nan


def _error(done: Retraining) -> float | None:
    """The standard error of a balanced accuracy; None if epochs are chosen by another measure."""
    return done.kept.balanced_error if done.kept and done.learner.criterion == BALANCED else None
