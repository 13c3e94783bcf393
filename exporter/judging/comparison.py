"""Compares a found network with random ones of its space and known ones of the same latency, all trained alike.

One recipe, several seeds: trained on train, with the epoch chosen on valid, and scored once on test, image by image, so
that differences are paired. The networks and their latencies are determined first, and stay fixed; trainings are
independent jobs, each of which can resume.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.store import ImageStore, StoreError
from exporter.judging.answers import Trial, result_of, test_store_of, train_and_answer
from exporter.judging.contenders import Contender, choose, field_document, known_references, read_field, space_of
from exporter.judging.verdict import verdict
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retrain import open_teachers
from exporter.retraining.teacher import TeacherConfig
from exporter.retraining.trainings import begin_training
from foundation.files import strict_json, write_text
from searcher.arch.retarget import retarget
from searcher.arch.spec import Spec, spec_digest
from searcher.arch.tasks import Task
from searcher.running.device import resolve_device
from searcher.running.jobs import Job, Setting, run_jobs
from searcher.running.run_folder import Opening, RunError, RunFolder, read_config

COMPARISON = "comparison.json"
FOLDER = "comparison"
_NETWORKS = "networks.json"

Log = Callable[[str], None]


@dataclass(frozen=True)
class CompareConfig:
    """What defines a comparison, except the recipe, which is in each training's folder, and the number of seeds, which
    may grow."""

    num_random: int
    """Random networks of the found one's space."""
    references: tuple[str, ...]
    """Names, files or runs; empty: all published ones, see `known_references`."""
    latency_batch: int
    latency_threads: int
    seed: int
    """Seed of the random networks; trainings use it and the ones after it."""
    test_dataset: str
    """The data set on whose test split the networks are scored."""
    test_sha256: str = ""
    dataset_sha256: str = ""
    spec_sha256: str = ""
    """Digest of the found network after re-targeting."""


def compare(
    run: Path,
    spec: Spec,
    recipe: RetrainConfig,
    config: CompareConfig,
    *,
    task: Task,
    store: ImageStore,
    num_seeds: int,
    setting: Setting,
    opening: Opening,
    log: Log,
) -> dict[str, Any]:
    """Judge a run's network, and write `comparison.json` and the trainings, a folder each, into the run.

    Args: spec: of the run's network. recipe: how all networks are trained. task: the task they are re-targeted to.
    store: the data they are trained on. setting: of the trainings.
    Returns: the written document.
    Raises: RunError: see `RunFolder.open`; or a training of the found network diverges; or the resumed comparison has
    more seeds. StoreError: the test images differ from those of training in classes or shape, or data of the resumed
    comparison have changed. DocumentError: a reference is unknown. Stopped, JobsError: as `run_jobs`. As `Teachers`: a
    teacher of the recipe cannot teach.
    """
    found = retarget(spec, task)
    test_store = test_store_of(config.test_dataset, like=store)
    config = replace(
        config, test_sha256=test_store.sha256["test"], dataset_sha256=store.digest, spec_sha256=spec_digest(found)
    )
    path = run / FOLDER / _NETWORKS
    is_chosen = path.exists() and not opening.force
    # A resumed comparison has them in its folder, and their files may be gone.
    references = [] if is_chosen else known_references(config.references, like=found)
    begun = RunFolder(run / FOLDER)
    if begun.begun and not opening.force:
        _check_goes_on(begun, config, dataset=task.dataset, num_seeds=num_seeds, again=opening.again)
    begun_with = None if opening.force else _teacher_of(run / FOLDER, like=recipe.teacher)
    recipe = replace(recipe, teacher=begun_with or recipe.teacher)
    is_done = begun.finished and begun.summary().get("seeds") == num_seeds and not opening.force
    if not is_done:
        # A teacher that is missing or has changed is reported at once.
        teachers = open_teachers(recipe, store, device=resolve_device(setting.device))
        if teachers is not None and begun_with is None:
            recipe = replace(recipe, teacher=teachers.config)
    folder = RunFolder.open(run / FOLDER, config, opening)
    try:
        if opening.force:
            _delete(folder.path)
        if path.exists():
            field = read_field(path)
        else:
            with setting.interrupt.at_once():
                field = choose(
                    spec,
                    task=task,
                    space=space_of(run, spec),
                    num_random=config.num_random,
                    references=references,
                    batch=config.latency_batch,
                    threads=config.latency_threads,
                    seed=config.seed,
                    log=log,
                )
            (run / COMPARISON).unlink(missing_ok=True)  # of other networks
            write_text(path, strict_json(field_document(field)) + "\n")
        jobs = [
            _begin(contender, recipe, seed, run=run, store=store, config=config, opening=opening)
            for contender in field.contenders
            for seed in range(config.seed, config.seed + num_seeds)
        ]
        summaries = _train(jobs, folder=folder.path, setting=setting, log=log)
        results = [result_of(job, summary) for job, summary in zip(jobs, summaries, strict=True)]
        document = {
            "spec_sha256": spec_digest(spec),
            "dataset": store.name,
            "test_dataset": test_store.name,
            "preset": recipe.preset,
            "epochs": recipe.num_epochs,
            "seeds": num_seeds,
            "latency_batch": config.latency_batch,
            "latency_threads": config.latency_threads,
            **verdict(field, results, num_seeds=num_seeds),
        }
        write_text(run / COMPARISON, strict_json(document) + "\n")
        folder.finish({"networks": len(field.contenders), "seeds": num_seeds})
        return document
    finally:
        folder.close()


def _delete(folder: Path) -> None:
    """Delete all that an earlier comparison left, except its configuration."""
    (folder / _NETWORKS).unlink(missing_ok=True)
    for training in folder.glob("*/seed-*"):
        shutil.rmtree(training)


def _check_goes_on(folder: RunFolder, config: CompareConfig, *, dataset: str, num_seeds: int, again: str) -> None:
    """Raises: StoreError: data of the comparison begun there have changed. RunError: it has more seeds."""
    before = read_config(folder.config_path, CompareConfig)
    changed = f"the data set {dataset}" if before.dataset_sha256 != config.dataset_sha256 else ""
    if not changed and before.test_sha256 != config.test_sha256:
        changed = f"the test split of {config.test_dataset}"
    # The spec contains the name of the data set: the names are the same, but the data have changed.
    names = (config.spec_sha256, config.test_dataset)
    if changed and names == (before.spec_sha256, before.test_dataset):
        raise StoreError(
            f"{changed} is no longer the one of the comparison in {folder.path}; start anew with `{again} --force`"
        )
    seeds = folder.summary().get("seeds", 0) if folder.finished else 0
    if num_seeds < seeds:
        raise RunError(
            f"{folder.path} has {seeds} seeds of each network, and --seeds is {num_seeds}: "
            f"go on with --seeds {seeds} or more, or start anew with `{again} --force`"
        )


def _teacher_of(folder: Path, *, like: TeacherConfig) -> TeacherConfig | None:
    """The teacher of the trainings begun in a folder; None if none has begun, or with other files."""
    begun = map(like.begun_in, folder.glob("*/seed-*/config.toml"))
    return next((one for one in begun if one is not None), None)


def recipe_for_all(recipe: RetrainConfig) -> RetrainConfig:
    """A retraining's recipe in a form for all networks: on train, without auxiliary head and drop path, which only some
    spaces have, and without the digests of its teachers."""
    training = replace(recipe.training, auxiliary_weight=0.0, drop_path_prob=0.0)
    return replace(recipe, training=training, teacher=recipe.teacher.of_any_file, train_on="train", model="spec")


def _begin(
    contender: Contender,
    recipe: RetrainConfig,
    seed: int,
    *,
    run: Path,
    store: ImageStore,
    config: CompareConfig,
    opening: Opening,
) -> Job:
    job = begin_training(
        f"{contender.name}, seed {seed}",
        contender.spec,
        replace(recipe, seed=seed),
        path=run / FOLDER / contender.name.replace(", ", "-").replace(" ", "-") / f"seed-{seed}",
        store=store,
        opening=replace(opening, resume=not opening.force),
    )
    return replace(job, arguments=Trial(job.arguments, config.test_dataset))


def _train(jobs: Sequence[Job], *, folder: Path, setting: Setting, log: Log) -> list[dict[str, Any]]:
    def on_result(index: int, summary: Mapping[str, Any]) -> None:
        score = summary["valid_accuracy"]
        log(f"{jobs[index].title}: " + ("it diverges" if score is None else f"valid accuracy {score:.2%}"))

    return run_jobs(train_and_answer, jobs, folder=folder, setting=setting, title="compare", on_result=on_result)
