"""How well a search ranks architectures: Kendall's τ between what it goes by and what training from scratch says.

A search goes by shared weights, and a derivation by short trainings, its rungs. A pool of random architectures, from
the cheapest to the dearest, is scored on valid with the weights of the finished supernet, trained as in those rungs,
and trained for long with several seeds; what is predicted lies on another half of valid than what predicts, lest both
share the luck of the same images. How far long trainings agree among themselves is what a predictor can reach, and how
far costs agree with them what it has to beat. Test is not looked at. A small valid cannot tell networks apart, so
trainings are judged by their last epoch's loss, too, as `standings.py` does.

Sources: Yu et al. 2020, "Evaluating the search phase of neural architecture search", section 4; Ru et al. 2021, "Speedy
Performance Estimation for Neural Architecture Search", for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporter.judging.agreement import Agreement, agreement, seed_standard_error, seed_tau
from exporter.judging.pool import check_pool, folder_of, stratified
from exporter.judging.predictors import Predictor, costs, shared_weights, short_training
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retraining import Retraining
from exporter.retraining.text import score_text
from exporter.retraining.trainings import Training, begin_training, score_job
from exporter.selection.searches import finished_search
from exporter.selection.standings import showing_of
from foundation.files import strict_json, write_text
from foundation.seeds import numpy_generator, stream_seed
from searcher.arch.space import space_module
from searcher.arch.spec import spec_digest
from searcher.running import device as devices
from searcher.running.interrupt import Interrupt
from searcher.running.jobs import Job, Setting, Work, run_jobs
from searcher.running.pacing import Pace
from searcher.running.run_folder import Opening
from searcher.training.image_learner import ImageTraining
from searcher.training.learner import Half, more_is_better
from searcher.training.mirroring import with_flip

RANKING = "ranking.json"
_FOLDER = "ranking"
# How many to train further somebody who goes by the scores would take.
_TOP = 3


@dataclass(frozen=True)
class Judgement:
    """What trainings from scratch came to, by one measure, and how well each predictor foretells it."""

    measure: str
    alone: tuple[tuple[float | None, ...], ...]
    """A row for each seed; None, the worst, where a training diverged."""
    agreements: tuple[Agreement, ...]
    """In the order of the predictors."""
    seed_tau: float | None
    """Kendall's τ between trainings that differ in their seed alone: the most that a predictor can be asked for. None
    of one seed."""
    seed_standard_error: float | None


@dataclass(frozen=True)
class Ranking:
    """A pool's scores, in one order, and how far they agree."""

    metric: str
    """accuracy or perplexity, of the networks trained alone; of shared weights it is the search's reward."""
    architectures: tuple[str, ...]
    """In the published encoding."""
    rate_scales: tuple[tuple[float, ...], ...]
    """What part of the learning rate each bore, a row for each seed, see `retrain.train`."""
    predictors: tuple[Predictor, ...]
    """Shared weights, whose scores are rewards on the first half of valid; rungs, on that half, too; then costs."""
    judgements: tuple[Judgement, ...]
    """By the metric on the second half of valid; by the training loss of the last epoch."""
    epochs: int
    """Of training from scratch."""
    seed: int
    spec_sha256: str
    """Of the spec that the search came to."""


def rank(
    run: Path,
    config: RetrainConfig,
    *,
    count: int,
    num_seeds: int,
    seed: int,
    rungs: Sequence[RetrainConfig],
    setting: Setting,
    opening: Opening,
    log: Callable[[str], None],
) -> Ranking:
    """Judge the search of a run, and write `ranking.json` and the trainings, a folder each, into it.

    Args: config: how each architecture is trained. count: of architectures. num_seeds: trainings of each. seed: chooses
    the architectures; trainings take it and those after it. rungs: how a derivation trains candidates, of one number of
    epochs each. setting: of the trainings; shared weights score on its device, too.
    Raises: RunError: no search is finished there, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: the space has not as many architectures. Stopped, JobsError: as `run_jobs`.
    """
    finished = finished_search(run, device=devices.resolve_device(setting.device))
    search, store = finished.search, finished.store
    metric = search.learner.metric
    specs = stratified(search, count, seed=seed)
    training = search.config.training
    if isinstance(training, ImageTraining):  # as the search saw the pictures
        config, *rungs = (with_flip(one, flip=training.augmentation.flip) for one in (config, *rungs))
    # Rungs have a seed of their own: a training and its beginning would share the luck of their first weights.
    rung_seed = stream_seed(seed, "ranking", "rungs")
    short_recipes = {f"epochs-{rung.num_epochs}": replace(rung, seed=rung_seed) for rung in rungs}
    long_recipes = {f"seed-{one}": replace(config, seed=one) for one in range(seed, seed + num_seeds)}
    if not opening.force:
        check_pool(run / _FOLDER, specs, recipes=(*short_recipes, *long_recipes), again=opening.again)

    def begun(recipes: Mapping[str, RetrainConfig]) -> list[Job]:
        return [
            begin_training(
                f"architecture {number + 1} of {count}, {name.replace('-', ' ')}",
                spec,
                recipe,
                path=run / _FOLDER / folder_of(number) / name,
                store=store,
                opening=opening,
            )
            for name, recipe in recipes.items()
            for number, spec in enumerate(specs)
        ]

    of_rungs, alone = begun(short_recipes), begun(long_recipes)
    if not opening.resume:
        (run / RANKING).unlink(missing_ok=True)  # of a search, or a pool, that this one takes the place of
    with devices.torch_threads(config.threads):
        shared = shared_weights(search, specs)

    def tell(jobs: Sequence[Job], index: int, training: dict[str, Any]) -> None:
        score = training["valid_score"]
        log(
            f"{jobs[index].title}: reward {shared.scores[index % count]:.4g} with the shared weights; with its own "
            + ("it diverges" if score is None else f"valid {metric} {score_text(metric, score)}")
        )

    def trained(work: Work[dict[str, Any]], jobs: Sequence[Job], *, title: str) -> list[list[dict[str, Any]]]:
        """A row over the pool for each recipe."""
        done = run_jobs(work, jobs, folder=run / _FOLDER, setting=setting, title=title, on_result=partial(tell, jobs))
        return [done[start : start + count] for start in range(0, len(done), count)]

    short, long = trained(train_in_rung, of_rungs, title="rungs"), trained(train_alone, alone, title="rank")
    half = store.count("valid") // 2
    predictors = (
        shared,
        *(
            short_training(rung.num_epochs, list(map(showing_of, row)), metric=metric, count=half)
            for rung, row in zip(rungs, short, strict=True)
        ),
        *costs(specs),
    )
    judged = partial(_judgement, long, predictors, seed=seed)
    ranking = Ranking(
        metric=metric,
        architectures=tuple(space_module(spec.space).to_published(spec.architecture) for spec in specs),
        rate_scales=tuple(tuple(training["rate_scale"] for training in row) for row in long),
        predictors=predictors,
        judgements=(
            judged(metric, "valid_score", sign=1 if more_is_better(metric) else -1),
            judged("training loss", "train_loss", sign=-1),
        ),
        epochs=config.num_epochs,
        seed=seed,
        spec_sha256=spec_digest(finished.spec),
    )
    write_text(run / RANKING, strict_json(asdict(ranking)) + "\n")
    return ranking


def train_alone(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """A job: an architecture's summary, with the score that is predicted, see `score_job`."""
    return score_job(training, partial(_last_score, half="second"), device=device, interrupt=interrupt, pace=pace)


def train_in_rung(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """The same, with a score that predicts."""
    return score_job(training, partial(_last_score, half="first"), device=device, interrupt=interrupt, pace=pace)


def _last_score(done: Retraining, *, half: Half) -> float:
    """Of the last epoch: one would be chosen on the images that judge it."""
    last = next(iter(done.candidates.values()))
    return done.learner.score(last.eval(), "valid", half=half).value


def _judgement(
    rows: Sequence[Sequence[Mapping[str, Any]]],
    predictors: Sequence[Predictor],
    measure: str,
    key: str,
    *,
    sign: int,
    seed: int,
) -> Judgement:
    """Args: rows: the trainings' summaries, a row for each seed; key: of the measure in them. sign: -1 where less of it
    is better."""
    alone = tuple(tuple(training[key] for training in row) for row in rows)
    trained = np.array([[-math.inf if value is None else sign * value for value in row] for row in alone])
    top = min(_TOP, trained.shape[1])
    agreements = tuple(
        agreement(one.scores, trained, top=top, generator=numpy_generator(seed, "ranking", "permutations"))
        for one in predictors
    )
    return Judgement(measure, alone, agreements, seed_tau(trained), seed_standard_error(trained))
