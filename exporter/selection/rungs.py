"""A rung of a derivation: trains candidates from scratch for some epochs, and reports the results. Chooses none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.retraining.config import RetrainConfig
from exporter.retraining.trainings import begin_training, validate_job
from exporter.selection.candidates import Candidate
from exporter.selection.halving import HalvingConfig
from exporter.selection.standings import Showing, showing_of
from searcher.nn.complexity import complexity_of
from searcher.running.jobs import Setting, run_jobs
from searcher.running.run_folder import Opening
from searcher.training.task_kinds import Store


@dataclass(frozen=True)
class Rung:
    """The results of one round of trainings."""

    epochs: int
    showings: dict[str, Showing]
    """By candidate."""

    def to_document(self) -> dict[str, Any]:
        """For `derivation.json`."""
        return {
            "epochs": self.epochs,
            "scores": {name: showing.score for name, showing in self.showings.items()},
            "losses": {name: showing.loss for name, showing in self.showings.items()},
            "train_accuracies": {name: showing.accuracy for name, showing in self.showings.items()},
        }


@dataclass(frozen=True)
class RungTrainer:
    """Trains candidates for the rungs of one derivation."""

    folder: Path
    config: HalvingConfig
    retrain_config: RetrainConfig
    store: Store
    setting: Setting
    again: str
    log: Callable[[str], None]

    def title(self, rung: int) -> str:
        return f"rung {rung} of {len(self.config.rung_epochs)}"

    def train(self, candidates: Sequence[Candidate], *, rung: int) -> dict[str, Showing]:
        """Returns each candidate's result, by name. Args: rung: from 1. Raises: as `run_jobs`."""
        epochs, path, title = self.config.rung_epochs[rung - 1], self.folder / f"rung-{rung}", self.title(rung)
        recipe = shortened(self.retrain_config, epochs)
        # The longest first: if it began last, it would run alone in the end.
        candidates = sorted(candidates, key=lambda one: -complexity_of(one.spec).total.multiply_adds)
        jobs = [
            begin_training(
                one.name,
                one.spec,
                recipe,
                path=path / one.name.replace(" ", "-"),
                store=self.store,
                opening=Opening(resume=True, again=self.again),
            )
            for one in candidates
        ]
        self.log(f"{title}: {len(jobs)} candidates, {epochs} epochs each")
        trainings = run_jobs(validate_job, jobs, folder=path, setting=self.setting, title=title)
        return {one.name: showing_of(training) for one, training in zip(candidates, trainings, strict=True)}


def shortened(config: RetrainConfig, epochs: int) -> RetrainConfig:
    """Returns the training with fewer epochs of the same length: `min_steps` is reduced in proportion."""
    return replace(config, num_epochs=epochs, min_steps=config.min_steps * epochs // config.num_epochs)
