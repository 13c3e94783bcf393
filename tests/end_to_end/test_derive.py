"""`enas search --latency` and `enas derive` on a tiny space: what they choose, what they leave, how they go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from exporter.latency import measure as latency
from exporter.latency.measure import Latencies
from exporter.selection.standings import Showing, rank
from foundation.statistics import Estimate, Interval
from searcher.arch.catalog import published_names, published_spec
from searcher.arch.spec import read_spec, write_spec
from searcher.latency.blocks import blocks_of
from searcher.presets.catalog import search_preset
from searcher.running import distributed
from searcher.running.distributed import World
from searcher.running.run_folder import lock_file, read_toml
from searcher.training.derive import DeriveConfig
from searcher.training.search_config import SearchConfig
from tests.end_to_end.conftest import command, environment, here, macro_search, write_config, write_search
from tests.end_to_end.pretended import SPACE, pretend, pretend_everywhere, pretended_ms

TARGET_MS = 0.5
PUBLISHED = {name for name in published_names() if published_spec(name).space == "stages"}
KNOWN = PUBLISHED | {f"{name} on larger maps" for name in PUBLISHED}


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_everywhere(monkeypatch, tmp_path / "data")


@pytest.fixture(scope="module")
def searched_once(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, a finished search with a target, and `data`, its latency table."""
    config = replace(
        search_preset("stages", "quick", image_size=8),
        search_space=SPACE,
        num_epochs=2,
        policy_start_epoch=1,
        policy_steps=2,
        policy_samples=4,
        batch_size=32,
        reward_batch_size=16,
        derivation=DeriveConfig(num_samples=6, num_batches=1, num_finalists=2),
        dataset=str(store_path),
    )
    folder = tmp_path_factory.mktemp("searched")
    path = write_config(folder, config)
    with pytest.MonkeyPatch.context() as patch:
        pretend_everywhere(patch, folder / "data")
        here("search", "--config", path, "--run", folder / "run", "--latency", f"{TARGET_MS}ms", "--device", "cpu")
    return folder


@pytest.fixture(scope="module")
def derived_once(searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same after `enas derive`, and what that told."""
    folder = shutil.copytree(searched_once, tmp_path_factory.mktemp("derived"), dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        pretend_everywhere(patch, folder / "data")
        done = derive(folder / "run")
    return folder, done.stderr


@pytest.fixture
def searched(searched_once: Path, tmp_path: Path) -> Path:
    """A run of one's own, searched."""
    return shutil.copytree(searched_once, tmp_path, dirs_exist_ok=True) / "run"


@pytest.fixture
def derived(derived_once: tuple[Path, str], tmp_path: Path) -> Path:
    """A run of one's own, searched and derived."""
    return shutil.copytree(derived_once[0], tmp_path, dirs_exist_ok=True) / "run"


def test_a_search_with_a_target_predicts_and_meets_it(searched: Path) -> None:
    spec = read_spec(searched / "spec.json")
    assert sum(map(pretended_ms, blocks_of(spec))) == pytest.approx(TARGET_MS, rel=0.15)
    records = [json.loads(line) for line in (searched / "search/metrics.jsonl").read_text().splitlines()]
    assert records[-1]["latency_ms"] > 0


def derive(run: Path, *more: str, check: bool = True) -> Any:
    rungs = ("--rung", "1", "--rung", "2")
    return here("derive", run, "--device", "cpu", "--jobs", "1", *rungs, "--set", "batch_size=16", *more, check=check)


def _showings(rung: dict[str, Any]) -> dict[str, Showing]:
    return {
        name: Showing(score, rung["losses"][name], rung["train_accuracies"][name])
        for name, score in rung["scores"].items()
    }


def test_the_best_trained_candidate_becomes_the_spec(derived: Path) -> None:
    document = json.loads((derived / "derivation.json").read_text())
    names = {one["name"] for one in document["candidates"]}
    first, last = document["rungs"]
    assert set(first["scores"]) == names
    assert (first["epochs"], last["epochs"]) == (1, 2)
    for config in (derived / "derivation").glob("rung-1/*/config.toml"):
        assert (read_toml(config)["batch_size"], read_toml(config)["num_epochs"]) == (16, 1)
    assert len(last["scores"]) < len(names)
    showings = _showings(last)
    assert document["chosen"] == rank(showings, metric="accuracy", count=33)[0]
    chosen = next(one for one in document["candidates"] if one["name"] == document["chosen"])
    spec = read_spec(derived / "spec.json")
    assert spec.to_document()["architecture"] == chosen["spec"]["architecture"]
    assert spec.provenance["derivation"]["chosen"] == document["chosen"]
    assert spec.provenance["preset"] == "quick"
    assert read_spec(derived / "search/spec.json").provenance.get("derivation") is None


def test_every_candidate_meets_the_target_and_known_networks_take_part_at_a_width_that_does(
    derived: Path, derived_once: tuple[Path, str]
) -> None:
    candidates = json.loads((derived / "derivation.json").read_text())["candidates"]
    assert all(map(meets_target, candidates))
    known = {one["name"]: one["spec"]["architecture"] for one in candidates if one["name"] in KNOWN}
    too_slow = {name for name in KNOWN if f"{name} has no width at which" in derived_once[1]}
    assert known.keys() | too_slow | idle_of(derived_once[1]) >= KNOWN
    assert known
    assert all(stage["channels"] % 4 == 0 for architecture in known.values() for stage in architecture["stages"])


def idle_of(told: str) -> set[str]:
    """Who was left out for computing little, as the log says."""
    found = re.search("left out, for in the same time .* computes more than twice as much: (.*)", told)
    return set() if found is None else set(found[1].split(", "))


def meets_target(candidate: dict[str, Any]) -> bool:
    return -0.1 - 1e-9 <= candidate["latency_ms"] / TARGET_MS - 1 <= 0.03 + 1e-9


def slowed(times: Callable[[int], float]) -> Any:
    """`pretend` on a machine where the n-th network of a sitting takes so many times as long."""

    def measure(networks: Any, **settings: Any) -> Latencies:
        found = pretend(networks, **settings)
        ms = [times(number) * one.value for number, one in enumerate(found.ms)]
        return replace(found, ms=tuple(Estimate(value, Interval(value, value)) for value in ms))

    return measure


def test_where_predictions_err_widths_make_up_for_it(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The published networks, whose times are on record, lead every sitting.
    monkeypatch.setattr(latency, "measure", slowed(lambda number: 1.2 if number >= len(PUBLISHED) else 1.0))
    derive(searched)
    candidates = json.loads((searched / "derivation.json").read_text())["candidates"]
    found = [one for one in candidates if one["name"] not in KNOWN]
    assert found
    assert all(map(meets_target, found))


def test_a_machine_that_is_busy_while_all_are_measured_leaves_nobody_out(
    derived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((derived / "derivation.json").read_text())["candidates"]
    disturbed = slowed(lambda number: 1.2 if number >= len(PUBLISHED) else 1.0)
    final: list[int] = []

    def measure(networks: Any, **settings: Any) -> Latencies:
        if settings["effort"] is latency.FITTING:
            return pretend(networks, **settings)
        final.append(len(networks))
        return (disturbed if len(final) == 1 else pretend)(networks, **settings)

    monkeypatch.setattr(latency, "measure", measure)
    derive(derived, "--force")
    assert json.loads((derived / "derivation.json").read_text())["candidates"] == before
    assert len(final) == 2


def test_a_machine_at_another_pace_changes_nothing(derived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> list[Any]:
        candidates = json.loads((derived / "derivation.json").read_text())["candidates"]
        return [(one["name"], one["spec"], pytest.approx(one["latency_ms"])) for one in candidates]

    before = chosen()
    monkeypatch.setattr(latency, "measure", slowed(lambda number: 1.5))
    derive(derived, "--force")
    assert chosen() == before


def test_a_derivation_goes_on_with_what_is_trained(derived: Path) -> None:
    whole = json.loads((derived / "derivation.json").read_text())
    again = derive(derived, check=False)
    assert "already holds a finished run" in str(again.exception)
    trained = sorted((derived / "derivation/rung-1").glob("*/summary.json"))
    kept = trained[0].stat().st_mtime_ns
    trained[1].unlink()
    (derived / "derivation/summary.json").unlink()
    (derived / "derivation.json").unlink()
    # A worker of a run that was killed lets go of its folder a little later.
    orphan = lock_file(trained[1].parent / ".lock")
    threading.Timer(0.5, orphan.close).start()
    derive(derived, "--resume")
    assert json.loads((derived / "derivation.json").read_text()) == whole
    assert trained[0].stat().st_mtime_ns == kept
    derive(derived, "--force")
    assert json.loads((derived / "derivation.json").read_text()) == whole


def test_a_finished_derivation_puts_its_choice_back_where_another_search_took_its_place(derived: Path) -> None:
    path = derived / "spec.json"
    chosen, written = path.read_bytes(), path.stat().st_mtime_ns
    again = derive(derived, "--resume")
    assert f"{derived / 'derivation'}: finished before" in again.stderr
    assert "wrote" not in again.stderr
    assert path.stat().st_mtime_ns == written
    shutil.copy(derived / "search" / "spec.json", path)  # as `enas search --force` with the same options leaves it
    again = derive(derived, "--resume")
    assert f"wrote {path}" in again.stderr
    assert path.read_bytes() == chosen
    own = read_spec(path)
    write_spec(path, replace(own, provenance={**own.provenance, "note": "mine"}))
    again = derive(derived, "--resume")
    assert f"{path} is another network than the one chosen" in again.stderr
    assert read_spec(path).provenance["note"] == "mine"


def test_a_finished_derivation_is_not_taken_for_one_of_another_recipe(derived: Path) -> None:
    other = ("--set", "sgd.learning_rate=1e-6", "--resume")
    refused = derive(derived, *other, check=False)
    assert re.search(r"recipe.sgd.learning_rate was [\d.]+, now 1e-06", str(refused.exception))
    # One of an earlier version, which recorded no recipe, still goes on.
    config = derived / "derivation" / "config.toml"
    config.write_text(config.read_text().partition("[recipe]")[0])
    derive(derived, *other)
    assert "recipe" not in read_toml(config)


def test_a_finished_derivation_is_one_whatever_cores_and_memory_its_trainings_may_take_now(derived: Path) -> None:
    config = (derived / "derivation" / "config.toml").read_text()
    again = derive(derived, "--resume", "--threads", "2", "--set", "memory_budget_mb=512")
    assert "finished before" in again.stderr
    assert (derived / "derivation" / "config.toml").read_text() == config


def test_a_chosen_network_that_was_lost_is_written_again(derived: Path) -> None:
    path = derived / "spec.json"
    before = path.read_bytes()
    path.unlink()
    assert (
        f"`enas derive {derived} --resume`, with the options it was"
        in here("search", "--run", derived, "--resume").stderr
    )
    derive(derived, "--resume")
    assert path.read_bytes() == before
    path.unlink()
    (derived / "derivation.json").unlink()
    assert "was missing and is written again" in here("search", "--run", derived, "--resume").stderr
    assert read_spec(path) == read_spec(derived / "search" / "spec.json")


def test_ranks_predict_with_the_first_ones_table(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(World):
        """Hears of another target, which the first rank has looked up in its own table."""

        def share(self, make: Callable[[], Any]) -> Any:
            value = make()
            if isinstance(value, tuple) and isinstance(value[0], SearchConfig):
                config, table = value
                assert config.latency is not None
                return replace(config, latency=replace(config.latency, target_ms=0.125)), table
            return value

    @contextmanager
    def second(_: torch.device) -> Iterator[World]:
        yield Second()

    monkeypatch.setattr(distributed, "joined", second)
    refused = here("search", "--run", searched, "--resume", check=False)
    assert re.search(r"latency.target_ms was [\d.]+, now 0.125", str(refused.exception))


def test_a_training_that_has_lost_its_metrics_is_named(derived: Path) -> None:
    (derived / "derivation" / "summary.json").unlink()
    training = next((derived / "derivation" / "rung-1").glob("*/summary.json")).parent
    (training / "summary.json").unlink()
    (training / "metrics.jsonl").unlink()
    refused = derive(derived, "--resume", check=False)
    assert f"{training}: its metrics are gone; remove that folder" in str(refused.exception)


def test_a_provenance_without_a_seed_that_counts_is_passed_over(searched: Path) -> None:
    path = searched / "search" / "spec.json"
    document = json.loads(path.read_text())
    document["provenance"] |= {"seed": "x", "preset": ["quick"]}
    path.write_text(json.dumps(document))
    derive(searched)
    config = read_toml(searched / "derivation" / "config.toml")
    assert (config["seed"], config["num_candidates"]) == (0, 4)


def test_what_is_no_searched_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"")
    for path in (tmp_path, tmp_path / "x.h5"):
        refused = derive(path, check=False).exception
        assert str(refused) == f"{path}: no search is finished there; give the run directory of one that is"


def test_neighbours_of_the_first_rungs_best_join_it_and_a_resumed_derivation_takes_the_same(
    derived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads((derived / "derivation.json").read_text())
    derive(derived, "--descendants", "2", "--force")
    whole = json.loads((derived / "derivation.json").read_text())
    born = [one for one in whole["candidates"] if " descendant " in one["name"]]
    assert whole["candidates"] == first["candidates"] + born
    assert len(born) == 2
    assert all(map(meets_target, born))
    ranked = rank(_showings(first["rungs"][0]), metric=whole["metric"], count=33)
    held = {one["name"] for one in first["candidates"] if one["drawn"] is not None}
    best = next(name for name in ranked if name in held)
    assert {one["name"].partition(" descendant ")[0] for one in born} == {best}
    names = {one["name"] for one in whole["candidates"]}
    assert set(whole["rungs"][0]["scores"]) == names
    # Killed while the second descendant was trained.
    folder = derived / "derivation"
    for path in (derived / "derivation.json", folder / "summary.json"):
        path.unlink()
    shutil.rmtree(folder / "rung-2")
    shutil.rmtree(folder / "rung-1" / born[1]["name"].replace(" ", "-"))
    monkeypatch.setattr(latency, "measure", lambda *_, **__: pytest.fail("they are chosen already"))
    derive(derived, "--descendants", "2", "--resume")
    assert json.loads((derived / "derivation.json").read_text()) == whole


def test_a_derivation_stops_at_once_while_it_measures(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> Latencies:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on measuring")

    with monkeypatch.context() as patch:
        patch.setattr(latency, "measure", stopped)
        done = derive(searched, check=False)
    assert done.exit_code == 130
    assert "--resume" in done.stderr
    derive(searched, "--resume")
    assert (searched / "derivation.json").exists()


@pytest.mark.slow
def test_a_derivation_killed_in_every_rung_makes_the_same_choice(store_path: Path, tmp_path: Path) -> None:
    path, run = write_search(tmp_path, macro_search, store_path), tmp_path / "run"
    here("search", "--space", "macro", "--config", path, "--run", run, "--device", "cpu")
    whole = shutil.copytree(run, tmp_path / "whole")
    options = ("--candidates", "4", "--rung", "3", "--rung", "4", "--jobs", "2", "--device", "cpu", "--resume")
    for rung in (1, 2):
        process = subprocess.Popen(command("derive", str(run), *options), env=environment(), stderr=subprocess.DEVNULL)
        while not list((run / f"derivation/rung-{rung}").glob("*/checkpoint.pt")):
            assert process.poll() is None
            time.sleep(0.02)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=60)
        assert not (run / "derivation.json").exists()
    for folder in (run, whole):
        subprocess.run(command("derive", str(folder), *options), env=environment(), check=True)
    for name in ("derivation.json", "spec.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_the_report_tells_the_rungs(derived: Path) -> None:
    here("report", derived)
    page = (derived / "report.html").read_text()
    assert "Derivation" in page
    assert "validation accuracy, 2 epochs" in page


def test_retraining_and_export_take_the_derived_network(derived: Path) -> None:
    here("retrain", derived, "--epochs", "1", "--device", "cpu")
    here("export", derived)
    assert (derived / "model.onnx").exists()


def test_layers_are_brought_to_the_target_by_their_width(store_path: Path, tmp_path: Path) -> None:
    path, target = write_search(tmp_path, macro_search, store_path), 6.0
    run = tmp_path / "run"
    here("search", "--space", "macro", "--config", path, "--run", run, "--latency", f"{target}ms", "--device", "cpu")
    derive(run, "--candidates", "2")
    candidates = json.loads((run / "derivation.json").read_text())["candidates"]
    assert {one["spec"]["network"]["channels"] for one in candidates} != {4}
    assert all(0.9 * target <= one["latency_ms"] <= 1.03 * target for one in candidates)
