"""How well a search's shared weights rank architectures: Kendall's τ between what they say and what training says.

A pool of random architectures is scored on valid twice: with the weights of the finished supernet, and each with its
own, trained from scratch. Test is not looked at.

Source: Yu et al. 2020, "Evaluating the search phase of neural architecture search", section 4.
"""

# n architectures

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from datasets.files import write_text
from datasets.seeds import numpy_generator, stream_seed
from datasets.store import StoreError
from exporter.retrain import RetrainConfig, score_text, spec_digest, train
from searcher.arch.document import ConfigError
from searcher.arch.spaces import space_module
from searcher.arch.spec import Spec
from searcher.training.checkpoint import load_checkpoint
from searcher.training.checkpointer import Pace
from searcher.training.derive import bind
from searcher.training.interrupt import Interrupt
from searcher.training.learner import is_better
from searcher.training.learners import Store, load_store
from searcher.training.loop import Search
from searcher.training.run_folder import RunError, RunFolder, read_config, read_toml
from searcher.training.search_config import SearchConfig, config_types

RANKING = "ranking.json"
_FOLDER = "ranking"
_NUM_PERMUTATIONS = 10_000
_DRAWS = 20


@dataclass(frozen=True)
class Ranking:
    """A pool's scores, in one order, and how far they agree."""

    metric: str
    """accuracy or perplexity, of the networks trained alone; of shared weights it is the search's reward."""
    architectures: tuple[str, ...]
    """In the published encoding."""
    shared: tuple[float, ...]
    """Rewards on all of valid with the shared weights; more is better."""
    alone: tuple[float, ...]
    """The metric on valid after training from scratch, in the best epoch."""
    tau: float | None
    """Kendall's τ-b in [-1, 1]: 1 where both put them in one order, 0 where one says nothing of the other; None where
    one of them finds all alike."""
    p_value: float | None
    """How often a random order agrees, or disagrees, as much; None as for τ."""
    epochs: int
    """Of training from scratch."""
    seed: int


def rank(
    run: Path,
    config: RetrainConfig,
    *,
    count: int,
    seed: int,
    device: torch.device,
    resume: bool,
    force: bool,
    again: str,
    interrupt: Interrupt,
    pace: Pace,
    log: Callable[[str], None],
) -> Ranking:
    """Judge the search of a run, and write `ranking.json` and the trainings, a folder each, into it.

    Args: config: how each architecture is trained. count: of architectures. seed: chooses them. resume, force, again:
    as for `RunFolder.open`.
    Raises: RunError: no search is finished there, or see `RunFolder.open`. StoreError: its data set has changed.
    ConfigError: the space has not as many architectures. Stopped, CheckpointError, DivergedError: as `retrain`.
    """
    search, store = _finished_search(run, device=device)
    metric = search.learner.metric
    specs = _pool(search, count, seed=seed)
    folders = []
    for number, spec in enumerate(specs):
        one = replace(config, spec_sha256=spec_digest(spec), dataset_sha256=store.digest)
        path = run / _FOLDER / f"{number:02d}"
        folders.append(RunFolder.open(path, one, resume=resume, force=force, again=again))
    shared, alone = [], []
    for number, (spec, folder) in enumerate(zip(specs, folders, strict=True), start=1):
        examples = numpy_generator(search.config.seed, "ranking", "examples")
        shared.append(search.learner.whole_reward(bind(search.supernet.eval(), spec.architecture), examples))
        if not folder.finished:
            trained = train(
                spec,
                config,
                store=store,
                folder=folder,
                device=device,
                interrupt=interrupt,
                pace=pace,
                title=f"{number} of {count}",
            )
            folder.finish({f"valid_{metric}": trained.best_score, "best_epoch": trained.best_epoch})
        alone.append(float(folder.summary()[f"valid_{metric}"]))
        log(
            f"architecture {number} of {count}: reward {shared[-1]:.4g} with the shared weights, "
            f"valid {metric} {score_text(metric, alone[-1])} with its own"
        )
    worth = np.asarray(alone) if is_better(metric, 1.0, than=0.0) else -np.asarray(alone)
    ranking = Ranking(
        metric=metric,
        architectures=tuple(space_module(spec.space).to_published(spec.architecture) for spec in specs),
        shared=tuple(shared),
        alone=tuple(alone),
        tau=kendall_tau(shared, worth),
        p_value=permutation_p_value(shared, worth, generator=numpy_generator(seed, "ranking", "permutations")),
        epochs=config.num_epochs,
        seed=seed,
    )
    write_text(run / RANKING, json.dumps(asdict(ranking), indent=2) + "\n")
    return ranking


def _finished_search(run: Path, *, device: torch.device) -> tuple[Search, Store]:
    """A search as it ended, and its data."""
    folder = RunFolder(run / "search")
    if not folder.finished:
        raise RunError(f"{run}: no search is finished there, whose shared weights could be judged")
    space = str(read_toml(folder.config_path).get("space"))
    config = read_config(folder.config_path, SearchConfig, types=config_types(space))
    store = load_store(config.dataset, space=space)
    if store.digest != config.dataset_sha256:
        raise StoreError(f"the data set {config.dataset} is no longer the one of the search in {folder.path}")
    search = Search(config, store=store, device=device)
    search.load(load_checkpoint(folder.checkpoint_path, required=("supernet",)))
    return search, store


def _pool(search: Search, count: int, *, seed: int) -> list[Spec]:
    """`count` different architectures, uniformly random."""
    rng = random.Random(stream_seed(seed, "ranking"))
    draws = (search.space.random(rng) for _ in range(_DRAWS * count))
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
    signs = [np.sign(np.subtract.outer(values, values)) for values in map(np.asarray, (first, second))]
    agreement, *pairs = (float((a * b).sum()) for a, b in ((signs[0], signs[1]), (signs[0],) * 2, (signs[1],) * 2))
    return agreement / (pairs[0] * pairs[1]) ** 0.5 if pairs[0] and pairs[1] else None


def permutation_p_value(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, generator: np.random.Generator
) -> float | None:
    """The part of random orders, the one found counted in, whose τ is at least as far from zero; None as for τ."""
    found = kendall_tau(first, second)
    if found is None:
        return None
    values = np.asarray(second)
    orders = (kendall_tau(first, generator.permutation(values)) for _ in range(_NUM_PERMUTATIONS))
    extreme = sum(abs(tau or 0.0) >= abs(found) - 1e-12 for tau in orders)
    return (extreme + 1) / (_NUM_PERMUTATIONS + 1)
