"""How well a search's shared weights rank architectures: Kendall's τ between what they say and what training says.

A pool of random architectures, from the cheapest to the dearest, is scored on valid with the weights of the finished
supernet, and each with its own, trained from scratch with several seeds; each on a half of valid, lest both share the
luck of the same images. How far trainings agree among themselves is what shared weights can reach, and how far costs
agree with them what they have to beat. Test is not looked at. A small valid cannot tell networks apart, so trainings
are judged by their last epoch's loss, too, as `standings.py` does.

Sources: Yu et al. 2020, "Evaluating the search phase of neural architecture search", section 4; Ru et al. 2021, "Speedy
Performance Estimation for Neural Architecture Search", for the loss.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.files import strict_json, write_text
from datasets.seeds import numpy_generator, stream_seed
from exporter.judging.agreement import Agreement, agreement, seed_standard_error, seed_tau
from exporter.latency.measure import measure
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retraining import Retraining
from exporter.retraining.text import score_text
from exporter.retraining.trainings import Training, begin_training, score_job
from exporter.selection.searches import finished_search
from searcher.arch.document import ConfigError
from searcher.arch.space import space_module
from searcher.arch.spec import Spec, spec_digest
from searcher.arch.tasks import ImageClassification
from searcher.nn.complexity import complexity_of
from searcher.training import device as devices
from searcher.training.derive import bind
from searcher.training.image_learner import ImageTraining
from searcher.training.interrupt import Interrupt
from searcher.training.jobs import Setting, run_jobs
from searcher.training.learner import more_is_better
from searcher.training.loop import Search
from searcher.training.mirroring import with_flip
from searcher.training.pacing import Pace
from searcher.training.run_folder import RunError, RunFolder, read_toml

RANKING = "ranking.json"
_FOLDER = "ranking"
# How many to train further somebody who goes by the scores would take.
_TOP = 3
# Random architectures for each one wanted: in a stratum, and at most.
_STRATUM = 20
_MOST_DRAWS = 2000


@dataclass(frozen=True)
class Predictor:
    """A score of every architecture, known before it is trained."""

    name: str
    scores: tuple[float, ...]
    """More is better."""


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
    """Shared weights, whose scores are rewards on the first half of valid; then what needs no search: costs."""
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
    device: torch.device,
    setting: Setting,
    executor: Executor | None,
    resume: bool,
    force: bool,
    again: str,
    log: Callable[[str], None],
) -> Ranking:
    """Judge the search of a run, and write `ranking.json` and the trainings, a folder each, into it.

    Args: config: how each architecture is trained. count: of architectures. num_seeds: trainings of each. seed: chooses
    the architectures; trainings take it and those after it. device: of the scores with shared weights. setting,
    executor: of the trainings, see `run_jobs`. resume, force, again: as for `RunFolder.open`.
    Raises: RunError: no search is finished there, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: the space has not as many architectures. Stopped, JobsError: as `run_jobs`.
    """
    finished = finished_search(run, device=device)
    search, store = finished.search, finished.store
    metric = search.learner.metric
    specs = _pool(search, count, seed=seed)
    training = search.config.training
    if isinstance(training, ImageTraining):
        config = with_flip(config, flip=training.augmentation.flip)  # as the search saw the pictures
    if not force:
        _check_pool(run / _FOLDER, specs, again=again)
    jobs = [
        begin_training(
            f"architecture {number + 1} of {count}" + (f", seed {one}" if num_seeds > 1 else ""),
            spec,
            replace(config, seed=one),
            path=run / _FOLDER / _name(number) / f"seed-{one}",
            store=store,
            resume=resume,
            force=force,
            again=again,
        )
        for one in range(seed, seed + num_seeds)
        for number, spec in enumerate(specs)
    ]
    if not resume:
        (run / RANKING).unlink(missing_ok=True)  # of a search, or a pool, that this one takes the place of
    with devices.threads(config.threads):
        shared = [_shared_reward(search, spec) for spec in specs]

    def on_result(index: int, training: dict[str, Any]) -> None:
        score = training["valid_score"]
        log(
            f"{jobs[index].title}: reward {shared[index % count]:.4g} with the shared weights; with its own "
            + ("it diverges" if score is None else f"valid {metric} {score_text(metric, score)}")
        )

    trainings = run_jobs(
        train_alone,
        jobs,
        folder=run / _FOLDER,
        setting=setting,
        executor=executor,
        title="rank",
        on_result=on_result,
    )
    rows = [trainings[start : start + count] for start in range(0, len(trainings), count)]
    predictors = tuple(Predictor(name, tuple(scores)) for name, scores in [("shared weights", shared), *_costs(specs)])
    judged = partial(_judgement, rows, predictors, seed=seed)
    ranking = Ranking(
        metric=metric,
        architectures=tuple(space_module(spec.space).to_published(spec.architecture) for spec in specs),
        rate_scales=tuple(tuple(training["rate_scale"] for training in row) for row in rows),
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


def _name(number: int) -> str:
    """Of the folder that holds an architecture's trainings."""
    return f"{number:02d}"


def _check_pool(folder: Path, specs: Sequence[Spec], *, again: str) -> None:
    """Raises: RunError: what is trained in the folder is not of this pool."""
    for number, spec in enumerate(specs):
        for path in (folder / _name(number)).glob("seed-*"):
            begun = RunFolder(path)
            if begun.begun and read_toml(begun.config_path).get("spec_sha256") != spec_digest(spec):
                raise RunError(
                    f"{folder} holds trainings of another pool, as another --count, --seed or search makes: go on with "
                    f"the options that it was begun with and --resume, or start anew with `{again} --force`"
                )


def train_alone(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """A job: an architecture's summary, with its score on the second half of valid, see `score_job`."""
    return score_job(training, _score_of_last_epoch, device=device, interrupt=interrupt, pace=pace)


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


def _score_of_last_epoch(done: Retraining) -> float:
    """On the second half of valid: an epoch would be chosen on the images that judge it."""
    last = next(iter(done.candidates.values()))
    return done.learner.score(last.eval(), "valid", half="second").value


def _shared_reward(search: Search, spec: Spec) -> float:
    """An architecture's reward on the first half of valid with the search's shared weights."""
    examples = numpy_generator(search.config.seed, "ranking", "examples")
    child = bind(search.supernet.eval(), spec.architecture)
    return search.learner.whole_reward(child, examples, half="first")


def _costs(specs: Sequence[Spec]) -> Iterator[tuple[str, list[float]]]:
    """What networks cost, which predicts, too: the larger are mostly the better. Latency is that of images, one a
    call, on one thread."""
    totals = [complexity_of(spec).total for spec in specs]
    yield "parameters", [float(total.parameters) for total in totals]
    yield "multiply-adds", [float(total.multiply_adds) for total in totals]
    if isinstance(specs[0].task, ImageClassification):
        yield "latency", [one.value for one in measure(specs).ms]


def _pool(search: Search, count: int, *, seed: int) -> list[Spec]:
    """`count` different architectures, one of each stratum: random ones in as many parts, by what networks cost.

    Where the search has a latency target they lie near it, for further off no weights are trained.
    """
    rng = random.Random(stream_seed(seed, "ranking"))
    draws = (search.space.random(rng) for _ in range(_MOST_DRAWS * count))
    near = islice((one for one in draws if search.is_near_target(one)), _STRATUM * count)
    specs: list[Spec] = [
        Spec(
            search.config.space, one, search.config.final_network, search.task, {"source": "random, by strata of cost"}
        )
        for one in dict.fromkeys(near)
    ]
    if len(specs) < count:
        raise ConfigError(f"of the space's architectures {len(specs)} were found, fewer than {count}")
    specs.sort(key=lambda spec: complexity_of(spec).total.multiply_adds)
    bounds = [len(specs) * number // count for number in range(count + 1)]
    return [specs[rng.randrange(start, stop)] for start, stop in itertools.pairwise(bounds)]
