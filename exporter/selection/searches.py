"""A finished search, as ranking and derivation use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from datasets.catalog import check_is_here
from datasets.store import StoreError
from exporter.latency.profiling import Profiled, table_here
from foundation.machine import is_this_cpu
from searcher.arch.spec import Spec, read_spec
from searcher.arch.tasks import ImageClassification
from searcher.latency.kept import KEPT
from searcher.latency.table import LatencyTable, TableError, read_table
from searcher.latency.target import Aim
from searcher.running.checkpoint import load_checkpoint
from searcher.running.run_folder import RunError, RunFolder, read_config, read_toml
from searcher.training.loop import Search
from searcher.training.search_config import SearchConfig, config_types
from searcher.training.task_kinds import Store, load_store


@dataclass(frozen=True)
class FinishedSearch:
    search: Search
    """With its policy and shared weights, its learner, its config."""
    store: Store
    spec: Spec
    """The spec that the search chose."""
    profiled: Profiled | None
    """The subject of its latency table; None for text."""
    table: LatencyTable | None
    """The table that it predicted with; None without a latency target."""


def finished_search(run: Path, *, device: torch.device) -> FinishedSearch:
    """Loads the finished search of a run, with its data.

    Raises: RunError: the run has no finished search. StoreError: its data set has changed. CheckpointError.
    """
    spec = searched_spec(run)
    folder = RunFolder(run / "search")
    space = str(read_toml(folder.config_path).get("space"))
    config = read_config(folder.config_path, SearchConfig, types=config_types(space))
    check_is_here(config.dataset, named_by=f"the search in {folder.path} is on")
    store = load_store(config.dataset, space=space)
    if store.digest != config.dataset_sha256:
        raise StoreError(f"the data set {config.dataset} is no longer the one of the search in {folder.path}")
    task = spec.task
    profiled = None
    if isinstance(task, ImageClassification):
        profiled = Profiled(space, config.search_space, config.final_network, task)
    aim, table = None, None
    if config.latency is not None:
        assert profiled is not None
        table = _table(config, profiled, folder.path)
        aim = Aim(config.latency, table.predictor(profiled.network, profiled.task))
    search = Search(config, store=store, device=device, aim=aim)
    search.load(load_checkpoint(folder.checkpoint_path, required=("supernet",)))
    return FinishedSearch(search, store, spec, profiled, table)


def searched_spec(run: Path) -> Spec:
    """Returns the spec that a run's search chose. Raises: RunError: there is no finished search. ArchitectureError."""
    folder = RunFolder(run / "search")
    if not folder.finished:
        raise RunError(f"{run}: no search is finished there; give the run directory of one that is")
    own = folder.path / "spec.json"
    return read_spec(own if own.exists() else run / "spec.json")  # earlier versions wrote only the run's


def _table(config: SearchConfig, profiled: Profiled, folder: Path) -> LatencyTable:
    """Returns the table that the search predicted with, from its folder.

    Raises: TableError: it is of another machine, or damaged.
    """
    target = config.latency
    assert target is not None
    here = {"batch": target.batch, "threads": target.threads}
    kept = folder / KEPT
    # A search begun by an earlier version has none in its folder.
    table = read_table(kept) if kept.exists() else table_here(profiled, **here, log=lambda line: None)
    if table.digest != target.table_sha256 or not is_this_cpu(table.setting.cpu):
        raise TableError("latency table", ["the search was made with another one; search again on this machine"])
    return table
