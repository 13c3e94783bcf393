"""What the options of a search mean together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundation.document import ConfigError
from searcher.arch.tasks import Task
from searcher.commands.search_request import SearchOptions, SearchRequest, search_request, with_latency
from searcher.latency.table import Fit, LatencyTable
from searcher.training.derive import PAPER_DERIVATION, DeriveConfig
from tests.end_to_end import conftest as tiny

store_path = tiny.store_path


def silent(line: str) -> None:
    """Where nobody listens."""


def request_of(store_path: Path, **options: Any) -> SearchRequest:
    return search_request(SearchOptions(dataset=str(store_path), **options), say=lambda _: None)


def test_without_a_word_the_space_for_deployment_is_searched_towards_its_own_target(store_path: Path) -> None:
    request = request_of(store_path)
    assert (request.config.space, request.config.preset, request.config.seed) == ("stages", "quick", 0)
    assert request.latency == "0.9x resnet-20"
    assert request.config.dataset_sha256 == request.store.digest
    assert request.default_run == Path("runs/stages-shapes-quick")


def test_a_published_preset_is_of_the_space_it_was_published_for(store_path: Path) -> None:
    request = request_of(store_path, preset="paper", memory_budget_mb=7, threads=3)
    assert (request.config.space, request.latency) == ("micro", None)
    assert (request.config.memory_budget_mb, request.config.threads) == (7, 3)


def test_an_option_beats_the_file_and_the_file_the_preset(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('seed = 5\nspace = "macro"\nnum_epochs = 9\n', encoding="utf-8")
    found = request_of(store_path, config_file=file)
    assert (found.config.space, found.config.seed, found.config.num_epochs) == ("macro", 5, 9)
    assert request_of(store_path, config_file=file, seed=0).config.seed == 0
    with pytest.raises(ConfigError, match=r"mine\.toml is for the space macro, but --space is micro"):
        request_of(store_path, config_file=file, space="micro")


def test_the_way_to_derive_replaces_only_what_is_of_the_other_kind(store_path: Path) -> None:
    file_says = ("derivation.num_batches=7",)
    assert request_of(store_path, derivation="paper").config.derivation == PAPER_DERIVATION
    kept = request_of(store_path, derivation="thorough", space="micro", assignments=file_says).config.derivation
    assert kept.num_batches == 7
    published = request_of(store_path, preset="paper").config.derivation
    thorough = request_of(store_path, preset="paper", derivation="thorough").config.derivation
    assert thorough == (DeriveConfig() if published == PAPER_DERIVATION else published)
    assert request_of(store_path, policy="random").config.policy.kind == "random"


class Tables:
    """Gives a table that says 1 ms of every network, and keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def latency_table(self, *_: object, batch: int, threads: int) -> LatencyTable:
        self.asked.append((batch, threads))
        return _OneMillisecond()  # type: ignore[return-value]


class _OneMillisecond:
    digest = "of the table"

    def __init__(self) -> None:
        self.references = {"resnet-20": 2.0}
        self.fit = Fit(0.1, 0.0, networks=40, held_out=30, median_error=0.0, rank_correlation=1.0)

    def predictor(self, network: object, task: Task) -> Any:
        return lambda _: 1.0


def test_a_goal_becomes_a_target_of_the_table_it_was_looked_up_in(store_path: Path) -> None:
    tables = Tables()
    request = request_of(store_path, space="stages", latency="0.9x resnet-20", latency_batch=4, latency_threads=2)
    config, table = with_latency(request, tables=tables, say=silent)
    assert config.latency is not None
    assert table is not None
    assert (config.latency.target_ms, config.latency.table_sha256) == (1.8, "of the table")
    assert tables.asked == [(4, 2)]
    # Gone on with, or done again from its file: the target itself, on the setting it was made for.
    again = replace(request, config=config, latency=None, latency_batch=None, latency_threads=None)
    assert with_latency(again, tables=tables, say=silent)[0] == config
    assert tables.asked == [(4, 2), (4, 2)]
    of_eight, _ = with_latency(replace(again, latency_batch=8), tables=tables, say=silent)
    assert of_eight.latency == replace(config.latency, batch=8)
    assert tables.asked[-1] == (8, 2)
    other = replace(config, latency=replace(config.latency, table_sha256="of another"))
    with pytest.raises(ConfigError, match="not the one of the config"):
        with_latency(replace(again, config=other), tables=tables, say=silent)


@pytest.mark.parametrize("way", ["file", "assignment"])
def test_a_goal_keeps_the_weight_that_is_set(store_path: Path, tmp_path: Path, way: str) -> None:
    given: dict[str, Any] = {"assignments": ("latency.weight=-0.2",)}
    if way == "file":
        given = {"config_file": tmp_path / "mine.toml"}
        given["config_file"].write_text("[latency]\ntarget_ms = 3.0\nweight = -0.2\n", encoding="utf-8")
    request = request_of(store_path, space="stages", latency="0.9x resnet-20", **given)
    config, _ = with_latency(request, tables=Tables(), say=silent)
    assert config.latency is not None
    assert (config.latency.target_ms, config.latency.weight) == (1.8, -0.2)


@pytest.mark.parametrize("goal", ["1", "0.9x nope", "0ms", "1e400ms", "0.9x"])
def test_a_goal_that_means_nothing_is_refused_before_anything_is_measured(store_path: Path, goal: str) -> None:
    tables = Tables()
    for space in ("stages", "macro"):
        with pytest.raises(ConfigError, match=r"is no latency; expected a time such as|expected more than 0"):
            with_latency(request_of(store_path, space=space, latency=goal), tables=tables, say=silent)
    assert tables.asked == []


def test_without_a_goal_nothing_is_measured(store_path: Path) -> None:
    tables = Tables()
    request = request_of(store_path, latency="none")
    assert with_latency(request, tables=tables, say=silent) == (request.config, None)
    with pytest.raises(ConfigError, match=r"--latency-threads is for searches with a latency target; give --latency"):
        with_latency(replace(request, latency_threads=2), tables=tables, say=silent)
    assert tables.asked == []


@pytest.mark.parametrize(("space", "target"), [("stages", "0.5"), ("micro", "0.05")])
def test_a_target_below_the_fastest_network_is_refused(store_path: Path, space: str, target: str) -> None:
    request = request_of(store_path, space=space, latency=f"{target}ms")
    with pytest.raises(ConfigError, match=rf"takes {target} ms; the fastest takes at least"):
        with_latency(request, tables=Tables(), say=silent)


def test_a_target_above_the_slowest_network_is_told(store_path: Path) -> None:
    told: list[str] = []
    with_latency(request_of(store_path, space="stages", latency="0.25s"), tables=Tables(), say=told.append)
    assert told[0].startswith("no network of this space takes as long as 250 ms; the slowest takes 1 ms. ")
    with_latency(request_of(store_path, space="micro", latency="0.25s"), tables=Tables(), say=told.append)
    assert len(told) == 1  # the cells' width is fitted to the target


def test_texts_have_no_latency_to_aim_at() -> None:
    options = SearchOptions(space="recurrent", latency="1ms")
    with pytest.raises(ConfigError, match="space recurrent have no latency to aim at"):
        with_latency(search_request(options, say=silent), tables=Tables(), say=silent)


@pytest.mark.parametrize("text", ["seed = 3\n", "[latency]\ntarget_ms = 2.0\n", 'dataset_sha256 = ""\n'])
def test_a_file_leaves_the_default_latency_unless_it_speaks_of_one_or_is_whole(
    store_path: Path, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    found = request_of(store_path, config_file=file)
    assert (found.latency == "0.9x resnet-20") == (text == "seed = 3\n")


def test_options_that_say_nothing_are_those_of_the_search_that_was_begun(tmp_path: Path) -> None:
    asked = SearchOptions(threads=2)
    assert asked.going_on(tmp_path) == asked
    config = tmp_path / "config.toml"
    config.write_text('space = "stages"\npreset = "quick"\n')
    for said in ({}, {"threads": 2}, {"latency": "0.2ms"}, {"space": "stages", "preset": "quick"}):
        assert SearchOptions(**said).going_on(tmp_path) == SearchOptions(**said, config_file=config)
    for said in ({"space": "micro"}, {"preset": "deploy"}, {"config_file": tmp_path / "mine.toml"}):
        assert SearchOptions(**said).going_on(tmp_path) == SearchOptions(**said)
