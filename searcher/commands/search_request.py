"""Turns a user's options for a search into its configuration, data and latency target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from foundation.document import ConfigError
from searcher.arch.tasks import Task, image_size_of
from searcher.arch.widths import has_one_width
from searcher.latency.extremes import latency_range
from searcher.latency.kept import Tables
from searcher.latency.references import references_of
from searcher.latency.table import LatencyTable
from searcher.latency.target import LatencyTarget, check_goal, check_has_latency, target_ms
from searcher.presets.catalog import default_dataset, default_latency, search_preset
from searcher.presets.datasets import default_space
from searcher.running.run_folder import read_toml
from searcher.running.settings import Settings
from searcher.training.derive import PAPER_DERIVATION, DeriveConfig
from searcher.training.mirroring import FLIP, decide_flip
from searcher.training.search_config import SearchConfig, config_types
from searcher.training.task_kinds import Store, check_images, load_store, task_of

_TARGET = LatencyTarget(target_ms=1.0)
"""Used for a goal until its time is looked up, so that settings can change its weight."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The user's options of `enas search`; None for an option that is not given."""

    space: str | None = None
    preset: str | None = None
    config_file: Path | None = None
    assignments: tuple[str, ...] = ()
    """Each KEY=VALUE."""
    dataset: str | None = None
    """A name, or the path of a store."""
    seed: int | None = None
    policy: Literal["lstm", "random"] | None = None
    derivation: Literal["thorough", "paper"] | None = None
    memory_budget_mb: int | None = None
    flip: bool | None = None
    threads: int | None = None
    latency: str | None = None
    """A time, a known network or a fraction of its latency, or `none` for no target."""
    latency_batch: int | None = None
    latency_threads: int | None = None

    def going_on(self, folder: Path) -> SearchOptions:
        """Returns these options, with the config of the search begun in a folder for those not given.

        Unchanged if they give a config, or if the folder's does not fit: of another space, preset or version.
        """
        config = folder / "config.toml"
        if self.config_file is not None or not config.exists():
            return self
        begun = read_toml(config)
        is_another = any(getattr(self, key) not in (None, begun.get(key)) for key in ("space", "preset"))
        is_of_this_version = SearchConfig.upgraded(begun) == begun
        return replace(self, config_file=config) if is_of_this_version and not is_another else self


@dataclass(frozen=True)
class SearchRequest:
    """A search, complete except for its latency target, which must be looked up in a table that may take a minute to
    measure."""

    config: SearchConfig
    store: Store
    task: Task
    latency: str | None
    """The goal that replaces the time of the configuration's target; None keeps it, if the configuration has one."""
    latency_batch: int | None
    latency_threads: int | None

    @property
    def default_run(self) -> Path:
        """The run directory if the user names none."""
        config = self.config
        name = Path(config.dataset).stem if config.dataset.endswith(".h5") else config.dataset
        return Path("runs") / f"{config.space}-{name}-{config.preset}"


def search_request(options: SearchOptions, *, say: Callable[[str], object]) -> SearchRequest:
    """Returns the search that the options ask for, with the data set opened. say: receives a line for the user.

    Raises: ArchitectureError, ConfigError, DocumentError, StoreError: an option is invalid.
    """
    settings = Settings.read(options.config_file, options.assignments)
    if "train_on" in settings.table:
        raise ConfigError(f"{settings.file} is a retraining's; a search takes that of another, RUN/search/config.toml")
    preset = settings.name("preset", options.preset) or "quick"
    space = settings.name("space", options.space) or default_space(preset)
    dataset = options.dataset or settings.text("dataset") or default_dataset(space, preset)
    store = load_store(dataset, space=space)
    # Fails now instead of at the end of the search.
    task = task_of(store, dataset=dataset)
    goal = options.latency
    if goal is None and not settings.has("latency") and not settings.is_of_a_run:
        goal = default_latency(space)
    config = search_preset(space, preset, image_size=image_size_of(task))
    if goal not in (None, "none"):
        config = replace(config, latency=_TARGET)
    config = settings.apply(config, types=config_types(space))
    config = replace(
        config,
        dataset=dataset,
        dataset_sha256=store.digest,
        memory_budget_mb=options.memory_budget_mb or config.memory_budget_mb,
        threads=options.threads or config.threads,
        seed=config.seed if options.seed is None else options.seed,
        derivation=_derivation(config, options.derivation),
    )
    if options.policy is not None:
        config = replace(config, policy=replace(config.policy, kind=options.policy))
    config = decide_flip(config, store, flip=options.flip, is_own=settings.has(FLIP), say=say)
    check_images(config.training, store)
    if goal == "none":
        goal, config = None, replace(config, latency=None)
    return SearchRequest(config, store, task, goal, options.latency_batch, options.latency_threads)


def with_latency(
    request: SearchRequest, *, tables: Tables, say: Callable[[str], object]
) -> tuple[SearchConfig, LatencyTable | None]:
    """Returns the configuration with its latency target, and the table to predict with; without a goal, the
    configuration's own target. say: receives a line for the user.

    Raises: ConfigError: the goal is invalid, no network of the space is fast enough, the space has no latencies, or the
    table is not the configuration's.
    """
    config, task, goal, network = request.config, request.task, request.latency, request.config.final_network
    asked = config.latency
    if goal is None and asked is None:
        for name, value in (("batch", request.latency_batch), ("threads", request.latency_threads)):
            if value is not None:
                raise ConfigError(f"--latency-{name} is for searches with a latency target; give --latency, too")
        return config, None
    before = asked or _TARGET
    batch, threads = request.latency_batch or before.batch, request.latency_threads or before.threads
    check_has_latency(config.space)
    if goal is not None:
        check_goal(goal, known=list(references_of(config.space, config.search_space, task)))
    table = tables.latency_table(config.space, config.search_space, network, task, batch=batch, threads=threads)
    if goal is not None:
        milliseconds = target_ms(goal, references=table.references)
        asked = replace(before, target_ms=milliseconds, batch=batch, threads=threads, table_sha256="")
    elif (batch, threads) != (before.batch, before.threads):
        asked = replace(before, batch=batch, threads=threads, table_sha256="")
    assert asked is not None
    if asked.table_sha256 not in ("", table.digest):
        raise ConfigError("the latency table of this machine is not the one of the config; give --latency anew")
    least, most = latency_range(config.search_space, table.predictor(network, task))
    if has_one_width(network):  # its width is fitted afterwards, so only the intercept bounds its latency
        least, most = table.fit.intercept_ms, math.inf
    if asked.target_ms < least:
        raise ConfigError(
            f"no network of this space takes {asked.target_ms:.3g} ms; the fastest takes at least {least:.3g} ms"
        )
    if asked.target_ms > most:
        say(
            f"no network of this space takes as long as {asked.target_ms:.3g} ms; the slowest takes {most:.3g} ms. "
            "What is found will be made wider than anything that is searched"
        )
    return replace(config, latency=replace(asked, table_sha256=table.digest)), table


def _derivation(config: SearchConfig, kind: Literal["thorough", "paper"] | None) -> DeriveConfig:
    """Returns the settings of the derivation; the configuration's if they are of this kind already, or kind is None."""
    if kind == "paper":
        return PAPER_DERIVATION
    if kind == "thorough" and config.derivation == PAPER_DERIVATION:
        return DeriveConfig()
    return config.derivation
