"""A run that is interrupted again and again, and resumed each time, ends as one that was left alone, to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.retraining.config import RetrainConfig
from exporter.retraining.config import config_types as retrain_types
from exporter.retraining.retrain import retrain
from searcher.arch.spec import Spec
from searcher.running.checkpoint import load_checkpoint
from searcher.running.interrupt import Interrupt, Stopped
from searcher.running.run_folder import Opening, RunFolder, read_config
from searcher.training.search import search
from searcher.training.search_config import SearchConfig, config_types
from searcher.training.task_kinds import load_store, task_of
from tests.end_to_end.comparing import assert_equal_stages, assert_equal_states
from tests.end_to_end.conftest import Tiny


class StopAfter(Interrupt):
    """Asks to stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self._looks -= 1
        return self._looks < 0


def stop_again_and_again(run: Callable[[Path, int], object], path: Path, *, first_turn: int) -> int:
    """Run in turns that grow by a look every few stops, until one ends by itself; gives the number of stops."""
    for stops in range(100):
        try:
            run(path, first_turn + stops // 4)
            return stops
        except Stopped:
            continue
    raise AssertionError("the run never ended")


def with_options(config: SearchConfig, name: str, **changes: Any) -> SearchConfig:
    """The tiny search's configuration, changed."""
    if name == "random":
        return replace(config, policy=replace(config.policy, kind="random"), **changes)
    if name == "moving average":
        changes |= {"reinforce": replace(config.reinforce, baseline="moving_average"), "policy_samples": 1}
    return replace(config, **changes)


@pytest.mark.parametrize(
    ("tiny", "name", "changes"),
    [
        ("micro", "default", {}),
        ("micro", "random", {"policy_start_epoch": 1}),
        ("micro", "moving average", {"architectures_per_step": 2, "control_samples": 0}),
        ("macro", "default", {}),
        ("stages", "default", {}),
        ("recurrent", "default", {}),
        ("recurrent", "moving average", {"architectures_per_step": 2, "control_samples": 0}),
    ],
    indirect=["tiny"],
)
def test_a_search_stopped_at_any_step_goes_on_exactly(
    tmp_path: Path, tiny: Tiny, name: str, changes: dict[str, Any]
) -> None:
    config = with_options(
        read_config(tiny.search_config, SearchConfig, types=config_types(tiny.space)), name, **changes
    )
    store = load_store(config.dataset, space=tiny.space)

    def run(path: Path, looks: int) -> None:
        folder = RunFolder.open(path / "search", config, Opening(resume=True))
        search(config, store=store, folder=folder, device=torch.device("cpu"), interrupt=StopAfter(looks))

    run(tmp_path / "whole", 10_000)
    # An epoch has three steps or more of shared weights and two of the policy: the stops fall into both, and into
    # derivation.
    assert stop_again_and_again(run, tmp_path / "stopped", first_turn=3) > 5
    assert (tmp_path / "stopped/spec.json").read_bytes() == (tmp_path / "whole/spec.json").read_bytes()
    assert_equal_stages(tmp_path / "stopped/search", tmp_path / "whole/search")


@pytest.mark.parametrize(
    ("tiny", "model"),
    [("micro", "spec"), ("macro", "spec"), ("recurrent", "spec"), ("recurrent", "lstm")],
    indirect=["tiny"],
)
def test_a_retraining_stopped_at_any_step_goes_on_exactly(tmp_path: Path, tiny: Tiny, model: Any) -> None:
    store = load_store(str(tiny.store_path), space=tiny.space)
    searched = read_config(tiny.search_config, SearchConfig, types=config_types(tiny.space))
    architecture = searched.search_space.random(random.Random(0))
    spec = Spec(tiny.space, architecture, searched.final_network, task_of(store, dataset=searched.dataset))
    config = replace(read_config(tiny.retrain_config, RetrainConfig, types=retrain_types(tiny.space)), model=model)

    def run(path: Path, looks: int) -> None:
        folder = RunFolder.open(path / "retrain", config, Opening(resume=True))
        retrain(spec, config, store=store, folder=folder, device=torch.device("cpu"), interrupt=StopAfter(looks))

    run(tmp_path / "whole", 10_000)
    assert stop_again_and_again(run, tmp_path / "stopped", first_turn=4) >= 3
    assert_equal_stages(tmp_path / "stopped/retrain", tmp_path / "whole/retrain")
    best = [load_checkpoint(tmp_path / name / "retrain" / "best.pt") for name in ("whole", "stopped")]
    assert_equal_states(*best)
    if tiny.space == "recurrent":
        # The stops fell before and into the averaging, which began within the run.
        assert load_checkpoint(tmp_path / "whole/retrain/checkpoint.pt")["average"]
