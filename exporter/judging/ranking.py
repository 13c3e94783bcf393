"""How well a search ranks architectures: Kendall's τ between its scores and those of training from scratch.

A search scores by shared weights, and a derivation by short trainings, its rungs. A pool of random architectures, from
the cheapest to the most expensive, is scored on valid with the weights of the finished supernet, trained as in those
rungs, and trained for long with several seeds; predictors use one half of valid and long trainings the other, so that
they do not share the luck of the same images. The agreement of long trainings with each other is the ceiling for a
predictor, and the agreement of costs with them is what it has to beat. Test is not used. A small valid cannot tell
networks apart, so trainings are also judged by their last epoch's loss, as in `standings.py`.

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
# How many architectures a user who relies on the scores would train further.
_TOP = 3


@dataclass(frozen=True)
class Judgement:
    """The results of trainings from scratch by one measure, and how well each predictor predicts them."""

    measure: str
    alone: tuple[tuple[float | None, ...], ...]
    """A row for each seed; None, the worst, where a training diverged."""
    agreements: tuple[Agreement, ...]
    """In the order of the predictors."""
    seed_tau: float | None
    """Kendall's τ between trainings that differ only in their seed: the ceiling for a predictor. None for one seed."""
    seed_standard_error: float | None


@dataclass(frozen=True)
class Ranking:
    """The scores of a pool, all in the same order of architectures, and how far they agree."""

    metric: str
    """accuracy or perplexity, of the networks trained alone; shared weights are scored by the search's reward."""
    architectures: tuple[str, ...]
    """In the published encoding."""
    rate_scales: tuple[tuple[float, ...], ...]
    """Factor on the learning rate at which each was stable, 0 if at none; a row for each seed, see `retrain.train`."""
    predictors: tuple[Predictor, ...]
    """Shared weights, whose scores are rewards on the first half of valid; rungs, on the same half; then costs."""
    judgements: tuple[Judgement, ...]
    """By the metric on the second half of valid; by the training loss of the last epoch."""
    epochs: int
    """Number of epochs of training from scratch."""
    seed: int
    spec_sha256: str
    """Digest of the spec that the search chose."""


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
    the architectures; trainings use it and the ones after it. rungs: how a derivation trains candidates, one for each
    number of epochs. setting: of the trainings; shared weights are scored on its device, too.
    Raises: RunError: the run has no finished search, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: the space has too few architectures. Stopped, JobsError: as `run_jobs`.
    """
    finished = finished_search(run, device=devices.resolve_device(setting.device))
    search, store = finished.search, finished.store
    metric = search.learner.metric
    specs = stratified(search, count, seed=seed)
    training = search.config.training
    if isinstance(training, ImageTraining):  # pictures are mirrored only if the search mirrored them
        config, *rungs = (with_flip(one, flip=training.augmentation.flip) for one in (config, *rungs))
    # Rungs have a seed of their own: otherwise they would share initial weights, and their luck, with a long training.
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
        (run / RANKING).unlink(missing_ok=True)  # of an earlier search or pool
    with devices.torch_threads(config.threads):
        shared = shared_weights(search, specs)

    def tell(jobs: Sequence[Job], index: int, training: dict[str, Any]) -> None:
        score = training["valid_score"]
        log(
            f"{jobs[index].title}: reward {shared.scores[index % count]:.4g} with the shared weights; with its own "
            + ("it diverges" if score is None else f"valid {metric} {score_text(metric, score)}")
        )

    def trained(work: Work[dict[str, Any]], jobs: Sequence[Job], *, title: str) -> list[list[dict[str, Any]]]:
        """Runs the jobs: a row of summaries over the pool for each recipe."""
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
    """Job: trains; the summary has the score to predict, on the second half of valid, see `score_job`."""
    return score_job(training, partial(_last_score, half="second"), device=device, interrupt=interrupt, pace=pace)


def train_in_rung(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """Job: trains; the summary has a score that predicts, on the first half of valid, see `score_job`."""
    return score_job(training, partial(_last_score, half="first"), device=device, interrupt=interrupt, pace=pace)


def _last_score(done: Retraining, *, half: Half) -> float:
    """The score of the last epoch: any other would be chosen on the images that judge it."""
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
    """Args: rows: the trainings' summaries, a row for each seed. key: of the measure in them. sign: -1 if lower is
    better, else 1."""
    alone = tuple(tuple(training[key] for training in row) for row in rows)
    trained = np.array([[-math.inf if value is None else sign * value for value in row] for row in alone])
    top = min(_TOP, trained.shape[1])
    agreements = tuple(
        agreement(one.scores, trained, top=top, generator=numpy_generator(seed, "ranking", "permutations"))
        for one in predictors
    )
    return Judgement(measure, alone, agreements, seed_tau(trained), seed_standard_error(trained))
