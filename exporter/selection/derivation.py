"""Chooses the architecture to retrain by training: successive halving from many candidates to one.

Shared weights hardly distinguish similar architectures, so they only choose candidates. These come from the search's
policy, at random from its space, and from the neighbourhood of the known networks. The known networks are candidates,
too, brought to the same latency, and the best of them stays to the last rung. All are measured, then trained in rungs,
each with fewer candidates for longer; neighbours of the first rung's best are also trained in it. Test is not used.

Sources: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"; Real et
al. 2019, "Regularized Evolution for Image Classifier Architecture Search", for neighbours of the best.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.retraining.config import RetrainConfig
from exporter.retraining.text import score_text
from exporter.selection.candidates import Candidate, candidates_of, descendants_of, read_candidate
from exporter.selection.halving import HalvingConfig
from exporter.selection.rungs import Rung, RungTrainer
from exporter.selection.searches import FinishedSearch, finished_search
from exporter.selection.standings import Showing, kept_of, rank
from foundation.document import read_json
from foundation.files import write_text
from searcher.arch.spec import Spec, read_spec, spec_digest, write_spec
from searcher.running.device import resolve_device
from searcher.running.jobs import Setting
from searcher.running.run_folder import Opening, RunFolder, read_toml
from searcher.training.image_learner import ImageTraining
from searcher.training.mirroring import with_flip

DERIVATION = "derivation.json"
_FOLDER = "derivation"
_CANDIDATES = "candidates.json"
_DESCENDANTS = "descendants.json"


@dataclass(frozen=True)
class Derivation:
    """A choice and its evidence, stored in `derivation.json`."""

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
    setting: Setting,
    opening: Opening,
    log: Callable[[str], None],
) -> Derivation:
    """Chooses the spec of a finished search again, by training, and writes it to the run's `spec.json`.

    The search's own choice stays in `search/spec.json`. Args: retrain_config: how candidates are trained, except for
    the number of epochs. setting: of the trainings.
    Raises: RunError: the run has no finished search, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: no sample meets the target. Stopped, JobsError: as `run_jobs`. BenchmarkError: see `measure`.
    """
    finished = finished_search(run, device=resolve_device(setting.device))
    training = finished.search.config.training
    if isinstance(training, ImageTraining):
        retrain_config = with_flip(retrain_config, flip=training.augmentation.flip)  # as in the search
    config = replace(config, spec_sha256=spec_digest(finished.spec))
    earlier = RunFolder(run / _FOLDER)
    if opening.force or not earlier.begun:
        config = replace(config, recipe=retrain_config)
    elif (recorded := read_toml(earlier.config_path).get("recipe")) is not None:
        config = replace(config, recipe=_with_resources_of(recorded, retrain_config))
    with closing(RunFolder.open(run / _FOLDER, config, opening)) as begun:
        if opening.force:
            _delete(begun.path)
        if begun.finished:
            derivation = read_derivation(run)
            log(f"{begun.path}: finished before")
            _put_back(run, derivation, finished.spec, log=log)
            return derivation
        (run / DERIVATION).unlink(missing_ok=True)
        trainer = RungTrainer(begun.path, config, retrain_config, finished.store, setting, opening.again, log)
        derivation = _Halving(finished, config, trainer).derivation()
        write_spec(run / "spec.json", _choice(derivation, finished.spec))
        log(f"wrote {run / 'spec.json'}")
        write_text(run / DERIVATION, json.dumps(derivation.to_document(), indent=1) + "\n")
        log(f"wrote {run / DERIVATION}")
        count = len(derivation.candidates)
        begun.finish({"chosen": derivation.chosen, "candidates": count, "seconds": round(begun.seconds, 1)})
        return derivation


@dataclass(frozen=True)
class _Halving:
    """Reduces the candidates of a search to one; reuses the candidates and trainings of an interrupted derivation."""

    finished: FinishedSearch
    config: HalvingConfig
    trainer: RungTrainer

    def derivation(self) -> Derivation:
        """Trains rung by rung. Raises: as `derive_by_training`."""
        search = self.finished.search
        metric = search.learner.metric
        candidates = self._chosen_once(_CANDIDATES, partial(candidates_of, self.finished, self.config))
        alive, rungs = candidates, []
        for number, epochs in enumerate(self.config.rung_epochs, start=1):
            showings = self.trainer.train(alive, rung=number)
            if number == 1 and self.config.num_descendants:
                ranked = self._ranked(alive, showings)
                descendants = self._chosen_once(
                    _DESCENDANTS, partial(descendants_of, ranked, self.finished, self.config)
                )
                showings |= self.trainer.train(descendants, rung=number)
                candidates = alive = [*alive, *descendants]
            rungs.append(Rung(epochs, showings))
            ranked = self._ranked(alive, showings)
            best = ranked[0].name
            told = _text(showings[best].score, metric)
            self.trainer.log(f"{self.trainer.title(number)}: the best is {best}, valid {metric} {told}")
            known = {one.name for one in ranked if one.reward is None}
            count = max(2, math.ceil(self.config.keep * len(ranked)))
            kept = kept_of([one.name for one in ranked], count, known=known)
            alive = [one for one in ranked if one.name in kept]
        target = search.config.latency
        return Derivation(
            chosen=best,
            metric=metric,
            target_ms=None if target is None else target.target_ms,
            candidates=tuple(candidates),
            rungs=tuple(rungs),
        )

    def _ranked(self, alive: Sequence[Candidate], showings: Mapping[str, Showing]) -> list[Candidate]:
        """Returns the candidates, best first."""
        by_name = {one.name: one for one in alive}
        names = rank(showings, metric=self.finished.search.learner.metric, count=self.finished.store.count("valid"))
        return [by_name[name] for name in names]

    def _chosen_once(self, file: str, choose: Callable[..., list[Candidate]]) -> list[Candidate]:
        """Returns the candidates in `file` if it exists, else those of `choose`, which it writes to `file`.

        Args: choose: called with `log`. Raises: DocumentError: the file is damaged.
        """
        path, log = self.trainer.folder / file, self.trainer.log
        if path.exists():
            return [read_candidate(one, source=str(path)) for one in read_json(path)]
        with self.trainer.setting.interrupt.at_once():
            log(f"choosing {path.stem}: drawing them, and fitting their widths by measurement where there is a target")
            candidates = choose(log=log)
        write_text(path, json.dumps([one.to_document() for one in candidates], indent=1) + "\n")
        return candidates


def read_derivation(run: Path) -> Derivation:
    """The finished derivation of a run. Raises: DocumentError: there is none, or its file is damaged."""
    path = run / DERIVATION
    document = read_json(path)
    candidates = tuple(read_candidate(one, source=str(path)) for one in document["candidates"])
    rungs = tuple(
        Rung(
            rung["epochs"],
            {
                name: Showing(score, rung.get("losses", {}).get(name), rung.get("train_accuracies", {}).get(name))
                for name, score in rung["scores"].items()
            },
        )
        for rung in document["rungs"]
    )
    return Derivation(document["chosen"], document["metric"], document["target_ms"], candidates, rungs)


def _delete(folder: Path) -> None:
    """Deletes the results of an earlier derivation, but not its configuration."""
    for name in (_CANDIDATES, _DESCENDANTS):
        (folder / name).unlink(missing_ok=True)
    for rung in folder.glob("rung-*"):
        shutil.rmtree(rung)


def _text(score: float | None, metric: str) -> str:
    return "none: all diverged" if score is None else score_text(metric, score)


def _with_resources_of(recorded: object, recipe: RetrainConfig) -> RetrainConfig:
    """The recipe with the threads and the memory budget of a recorded one: a derivation with others is the same.

    A training that has begun keeps its own, see `RunFolder.open`.
    """
    if not isinstance(recorded, dict):
        return recipe
    names = [name for name in ("threads", "memory_budget_mb") if type(recorded.get(name)) is int]
    return replace(recipe, **{name: recorded[name] for name in names})


def _put_back(run: Path, derivation: Derivation, searched: Spec, *, log: Callable[[str], None]) -> None:
    """Restores the choice of a finished derivation if spec.json is missing or is the search's own.

    Any other spec there is the user's and is kept.
    """
    path, choice = run / "spec.json", _choice(derivation, searched)
    found = read_spec(path) if path.exists() else None
    if found in (None, searched):
        write_spec(path, choice)
        log(f"wrote {path}")
    elif found != choice:
        log(f"{path} is another network than the one chosen, {derivation.chosen}; it stays")


def _choice(derivation: Derivation, searched: Spec) -> Spec:
    """The chosen spec, with the search's provenance and how it was chosen."""
    (chosen,) = (one for one in derivation.candidates if one.name == derivation.chosen)
    grounds = {
        "chosen": chosen.name,
        "candidates": len(derivation.candidates),
        "rung_epochs": [rung.epochs for rung in derivation.rungs],
        f"valid_{derivation.metric}": derivation.rungs[-1].showings[chosen.name].score,
    }
    return replace(chosen.spec, provenance={**searched.provenance, "derivation": grounds})
