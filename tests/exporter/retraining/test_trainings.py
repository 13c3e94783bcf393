"""Retrainings as jobs: what is said where one of them is damaged."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from datasets.catalog import load_images
from exporter.judging.answers import Trial, train_and_answer
from exporter.retraining.presets import retrain_preset
from exporter.retraining.trainings import begin_training, retrain_job, validate_job
from searcher.arch.catalog import find_spec
from searcher.arch.retarget import retarget
from searcher.running.checkpoint import CheckpointError
from searcher.running.interrupt import Interrupt
from searcher.running.pacing import Pace
from searcher.running.run_folder import Opening, RunError
from searcher.training.task_kinds import task_of
from tests.end_to_end import conftest as tiny

store_path = tiny.store_path


def test_a_damaged_training_costs_no_other_and_a_damaged_retraining_starts_anew(
    store_path: Path, tmp_path: Path
) -> None:
    store, path = load_images(str(store_path)), tmp_path / "training"
    spec = retarget(find_spec(Path("resnet-20")), task_of(store, dataset=str(store_path)))
    config = retrain_preset(spec.space, "quick")
    training = begin_training("one", spec, config, path=path, store=store, opening=Opening()).arguments
    (path / "checkpoint.pt").write_bytes(b"damaged")
    options = {"device": torch.device("cpu"), "interrupt": Interrupt(), "pace": Pace()}
    one_of_many = f"; remove {path} and go on with --resume"
    jobs = [
        (partial(validate_job, training), one_of_many),
        (partial(train_and_answer, Trial(training, str(store_path))), one_of_many),
        (partial(retrain_job, training), "; start anew with --force"),
    ]
    for job, cure in jobs:
        with pytest.raises(CheckpointError, match=f"checkpoint.pt: damaged, .*{cure}$"):
            job(**options)
    (path / "summary.json").write_text("damaged")
    for job, cure in jobs:
        with pytest.raises(RunError, match=f"summary.json: not valid JSON{cure}$"):
            job(**options)
