"""How well a search's shared weights rank architectures: Kendall's τ between what they say and what training says.

A pool of random architectures is scored on valid twice: with the weights of the finished supernet, and each with its
own, trained from scratch. Test is not looked at.

Source: Yu et al. 2020, "Evaluating the search phase of neural architecture search", section 4.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.files import strict_json, write_text
from datasets.seeds import numpy_generator, stream_seed
from exporter.retrain import RetrainConfig, score_text, train
from exporter.searches import finished_search
from exporter.trainings import Training, begin_training
from searcher.arch.document import ConfigError
from searcher.arch.spaces import space_module
from searcher.arch.spec import Spec, spec_digest
from searcher.training import device as devices
from searcher.training.checkpointer import Pace
from searcher.training.derive import bind
from searcher.training.epoch import DivergedError
from searcher.training.image_learner import ImageTraining
from searcher.training.interrupt import Interrupt
from searcher.training.jobs import Setting, run_jobs
from searcher.training.learner import more_is_better
from searcher.training.loop import Search
from searcher.training.mirroring import with_flip

RANKING = "ranking.json"
_FOLDER = "ranking"
_NUM_PERMUTATIONS = 10_000
_DRAWS_PER_ARCHITECTURE = 20


@dataclass(frozen=True)
class Ranking:
    """A pool's scores, in one order, and how far they agree."""

    metric: str
    """accuracy or perplexity, of the networks trained alone; of shared weights it is the search's reward."""
    architectures: tuple[str, ...]
    """In the published encoding."""
    shared: tuple[float, ...]
    """Rewards on all of valid with the shared weights; more is better."""
    alone: tuple[float | None, ...]
    """The metric on valid after training from scratch, in the best epoch; None, the worst, where it diverged."""
    rate_scales: tuple[float, ...]
    """What part of the learning rate each bore, see `retrain.train`."""
    tau: float | None
    """Kendall's τ-b in [-1, 1]: 1 where both put them in one order, 0 where one says nothing of the other; None where
    one of them finds all alike."""
    p_value: float | None
    """How often a random order agrees, or disagrees, as much; None as for τ."""
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

    Args: config: how each architecture is trained. count: of architectures. seed: chooses them. device: of the scores
    with shared weights. setting, executor: of the trainings, see `run_jobs`. resume, force, again: as for
    `RunFolder.open`.
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
    jobs = [
        begin_training(
            f"architecture {number + 1} of {count}",
            spec,
            config,
            path=run / _FOLDER / f"{number:02d}",
            store=store,
            resume=resume,
            force=force,
            again=again,
        )
        for number, spec in enumerate(specs)
    ]
    (run / RANKING).unlink(missing_ok=True)  # of a search, or a pool, that this one takes the place of
    with devices.threads(config.threads):
        shared = [_shared_reward(search, spec) for spec in specs]

    def on_result(index: int, training: dict[str, Any]) -> None:
        score = training["valid_score"]
        log(
            f"{jobs[index].title}: reward {shared[index]:.4g} with the shared weights; with its own "
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
    alone = tuple(training["valid_score"] for training in trainings)
    sign = 1 if more_is_better(metric) else -1
    worth = [-math.inf if score is None else sign * score for score in alone]
    ranking = Ranking(
        metric=metric,
        architectures=tuple(space_module(spec.space).to_published(spec.architecture) for spec in specs),
        shared=tuple(shared),
        alone=alone,
        rate_scales=tuple(training["rate_scale"] for training in trainings),
        tau=kendall_tau(shared, worth),
        p_value=permutation_p_value(shared, worth, generator=numpy_generator(seed, "ranking", "permutations")),
        epochs=config.num_epochs,
        seed=seed,
        spec_sha256=spec_digest(finished.spec),
    )
    write_text(run / RANKING, strict_json(asdict(ranking)) + "\n")
    return ranking


def train_alone(training: Training, *, device: torch.device, interrupt: Interrupt, pace: Pace) -> dict[str, Any]:
    """A job: an architecture's summary, with its score on valid, None where that is no number; test is left alone."""
    with training.opened() as (folder, store):
        if not folder.finished:
            options: dict[str, Any] = {"device": device, "interrupt": interrupt, "pace": pace}
            try:
                done = train(
                    training.spec, training.config, store=store, folder=folder, title=folder.path.name, **options
                )
            except DivergedError:
                folder.finish({"valid_score": None, "rate_scale": 0.0, "best_epoch": None})
            else:
                score = done.best.value if done.best else math.nan
                folder.finish(
                    {
                        "valid_score": score if math.isfinite(score) else None,
                        "rate_scale": done.weights.rate_scale,
                        "best_epoch": done.best_epoch,
                    }
                )
        return folder.summary()


def _shared_reward(search: Search, spec: Spec) -> float:
    """An architecture's reward on all of valid with the search's shared weights."""
    examples = numpy_generator(search.config.seed, "ranking", "examples")
    return search.learner.whole_reward(bind(search.supernet.eval(), spec.architecture), examples)


def _pool(search: Search, count: int, *, seed: int) -> list[Spec]:
    """`count` different architectures, uniformly random."""
    rng = random.Random(stream_seed(seed, "ranking"))
    draws = (search.space.random(rng) for _ in range(_DRAWS_PER_ARCHITECTURE * count))
    architectures = list(islice(dict.fromkeys(draws), count))
    if len(architectures) < count:
        raise ConfigError(f"the space has {len(architectures)} architectures, fewer than {count}")
    return [
        Spec(search.config.space, one, search.config.final_network, search.task, {"source": "uniformly random"})
        for one in architectures
    ]


def kendall_tau(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float | None:
    """τ-b of two scores of the same things, in which ties count for neither side; None where all of one are equal.

    Source: Kendall 1945, "The treatment of ties in ranking problems".
    """
    one, other = _signs(first), _signs(second)
    pairs = float((one**2).sum()) * float((other**2).sum())
    return float((one * other).sum()) / pairs**0.5 if pairs else None


def _signs(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """1 where the first of a pair is larger, -1 where it is smaller: [n, n]; values may be infinite."""
    return np.greater.outer(values, values).astype(int) - np.less.outer(values, values)


def permutation_p_value(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, generator: np.random.Generator
) -> float | None:
    """The part of random orders, the one found counted in, whose τ is at least as far from zero; None as for τ."""
    found = kendall_tau(first, second)
    if found is None:
        return None
    values = np.asarray(second)
    orders = (kendall_tau(first, generator.permutation(values)) for _ in range(_NUM_PERMUTATIONS))
    extreme = sum(tau is not None and abs(tau) >= abs(found) - 1e-12 for tau in orders)
    return (extreme + 1) / (_NUM_PERMUTATIONS + 1)
