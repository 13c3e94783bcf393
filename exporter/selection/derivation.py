"""The architecture to retrain, chosen by training: successive halving from many candidates to one.

Shared weights say little of architectures that lie close together, so they only choose who takes part. Candidates come
from the search's policy, at random from its space, and from the neighbourhood of the known networks. These join them,
brought to the same latency, and the best of them stays to the last rung. All are measured, then trained in rungs, each
with fewer candidates for longer. Test is not looked at.

Source: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.files import write_text
from exporter.retraining.config import RetrainConfig
from exporter.retraining.text import score_text
from exporter.retraining.trainings import begin_training, validate_job
from exporter.selection.candidates import Candidate, candidates_of, read_candidate
from exporter.selection.halving import HalvingConfig
from exporter.selection.searches import finished_search
from exporter.selection.standings import Showing, kept_of, rank
from searcher.arch.document import read_json
from searcher.arch.spec import Spec, spec_digest, write_spec
from searcher.training.image_learner import ImageTraining
from searcher.training.jobs import Setting, run_jobs
from searcher.training.mirroring import with_flip
from searcher.training.run_folder import RunFolder

DERIVATION = "derivation.json"
_FOLDER = "derivation"
_CANDIDATES = "candidates.json"


@dataclass(frozen=True)
class Rung:
    """What one round of trainings showed."""

    epochs: int
    showings: dict[str, Showing]
    """By candidate."""

    def to_document(self) -> dict[str, Any]:
        """For `derivation.json`."""
        return {
            "epochs": self.epochs,
            "scores": {name: showing.score for name, showing in self.showings.items()},
            "losses": {name: showing.loss for name, showing in self.showings.items()},
        }


@dataclass(frozen=True)
class Derivation:
    """A choice and its grounds; `derivation.json` holds it."""

    chosen: str
    metric: str
    target_ms: float | None
    candidates: tuple[Candidate, ...]
    rungs: tuple[Rung, ...]

    def to_document(self) -> dict[str, Any]:
        """For `derivation.json`."""
        return {
            "chosen": self.chosen,
            "metric": self.metric,
            "target_ms": self.target_ms,
            "candidates": [one.to_document() for one in self.candidates],
            "rungs": [rung.to_document() for rung in self.rungs],
        }


def derive_by_training(
    run: Path,
    config: HalvingConfig,
    retrain_config: RetrainConfig,
    *,
    device: torch.device,
    setting: Setting,
    executor: Executor | None,
    resume: bool,
    force: bool,
    again: str,
    log: Callable[[str], None],
) -> Derivation:
    """Choose the spec of a finished search anew, by training, and write it to the run's `spec.json`.

    The search's own choice stays in `search/spec.json`. Args: retrain_config: how candidates are trained, their
    number of epochs aside. setting, executor: of the trainings, see `run_jobs`. resume, force, again: as for
    `RunFolder.open`.
    Raises: RunError: no search is finished there, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: nothing meets the target. Stopped, JobsError: as `run_jobs`. BenchmarkError: see `measure`.
    """
    finished = finished_search(run, device=device)
    config = replace(config, spec_sha256=spec_digest(finished.spec))
    training = finished.search.config.training
    if isinstance(training, ImageTraining):
        retrain_config = with_flip(retrain_config, flip=training.augmentation.flip)  # as the search saw the pictures
    with closing(RunFolder.open(run / _FOLDER, config, resume=resume, force=force, again=again)) as begun:
        if force:
            _delete(begun.path)
        if begun.finished:
            return read_derivation(run)
        (run / DERIVATION).unlink(missing_ok=True)
        candidates = _read_candidates(begun.path / _CANDIDATES)
        if candidates is None:
            with setting.interrupt.at_once():
                candidates = candidates_of(finished, config, log=log)
            documents = [one.to_document() for one in candidates]
            write_text(begun.path / _CANDIDATES, json.dumps(documents, indent=1) + "\n")
        metric = finished.search.learner.metric
        alive = {one.name: one for one in candidates}
        rungs: list[Rung] = []
        for number, epochs in enumerate(config.rung_epochs, start=1):
            title = f"rung {number} of {len(config.rung_epochs)}"
            path = begun.path / f"rung-{number}"
            jobs = [
                begin_training(
                    name,
                    one.spec,
                    _shortened(retrain_config, epochs),
                    path=path / name.replace(" ", "-"),
                    store=finished.store,
                    resume=True,
                    force=False,
                    again=again,
                )
                for name, one in alive.items()
            ]
            log(f"{title}: {len(jobs)} candidates, {epochs} epochs each")
            trainings = run_jobs(validate_job, jobs, folder=path, setting=setting, executor=executor, title=title)
            showings = {
                name: Showing(training["valid_score"], training.get("train_loss"))
                for name, training in zip(alive, trainings, strict=True)
            }
            rungs.append(Rung(epochs, showings))
            ranked = rank(showings, metric=metric, count=finished.store.count("valid"))
            log(f"{title}: the best is {ranked[0]}, valid {metric} {_text(showings[ranked[0]].score, metric)}")
            if number == len(config.rung_epochs):
                kept = ranked[:1]
            else:
                known = {name for name, one in alive.items() if one.reward is None}
                kept = kept_of(ranked, max(2, math.ceil(config.keep * len(alive))), known=known)
            alive = {name: alive[name] for name in kept}
        (chosen,) = alive.values()
        target = finished.search.config.latency
        derivation = Derivation(
            chosen=chosen.name,
            metric=metric,
            target_ms=None if target is None else target.target_ms,
            candidates=tuple(candidates),
            rungs=tuple(rungs),
        )
        write_spec(run / "spec.json", _with_grounds(chosen, derivation, finished.spec))
        write_text(run / DERIVATION, json.dumps(derivation.to_document(), indent=1) + "\n")
        begun.finish({"chosen": chosen.name, "candidates": len(candidates), "seconds": round(begun.seconds, 1)})
        return derivation


def read_derivation(run: Path) -> Derivation:
    """The finished derivation of a run. Raises: DocumentError: there is none, or its file is damaged."""
    path = run / DERIVATION
    document = read_json(path)
    candidates = tuple(read_candidate(one, source=str(path)) for one in document["candidates"])
    rungs = tuple(
        Rung(
            rung["epochs"],
            {name: Showing(score, rung.get("losses", {}).get(name)) for name, score in rung["scores"].items()},
        )
        for rung in document["rungs"]
    )
    return Derivation(document["chosen"], document["metric"], document["target_ms"], candidates, rungs)


def _read_candidates(path: Path) -> list[Candidate] | None:
    """Those of an earlier start, if there are any.

    Raises: DocumentError: the file is damaged.
    """
    if not path.exists():
        return None
    return [read_candidate(one, source=str(path)) for one in read_json(path)]


def _delete(folder: Path) -> None:
    """All that an earlier derivation left, its configuration aside."""
    (folder / _CANDIDATES).unlink(missing_ok=True)
    for rung in folder.glob("rung-*"):
        shutil.rmtree(rung)


def _shortened(config: RetrainConfig, epochs: int) -> RetrainConfig:
    """The training with fewer epochs, and as many fewer steps at least."""
    return replace(config, num_epochs=epochs, min_steps=config.min_steps * epochs // config.num_epochs)


def _text(score: float | None, metric: str) -> str:
    return "none: all diverged" if score is None else score_text(metric, score)


def _with_grounds(chosen: Candidate, derivation: Derivation, searched: Spec) -> Spec:
    """The chosen spec, with the search's provenance and how it was chosen."""
    grounds = {
        "chosen": chosen.name,
        "candidates": len(derivation.candidates),
        "rung_epochs": [rung.epochs for rung in derivation.rungs],
        f"valid_{derivation.metric}": derivation.rungs[-1].showings[chosen.name].score,
    }
    return replace(chosen.spec, provenance={**searched.provenance, "derivation": grounds})
