"""`--latency` and the latency table: what is refused, what is measured once, what an interruption leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.latency import profiling
from exporter.latency.measure import Latencies, Untrained
from searcher.arch.spec import SpecOf
from searcher.presets.catalog import search_preset
from tests.end_to_end.conftest import here, write_config
from tests.end_to_end.pretended import SPACE, pretend, pretend_everywhere


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_everywhere(monkeypatch, tmp_path / "data")


@pytest.mark.parametrize(
    ("goal", "complaint"),
    [
        ("0.001ms", "no network of this space takes 0.001 ms; the fastest takes"),
        ("0ms", "expected more than 0"),
        ("fast", "is no latency"),
        ("2x mobilenet", "is no latency"),
    ],
)
def test_a_latency_that_cannot_be_is_refused_before_anything_is_written(
    goal: str, complaint: str, store_path: Path, tmp_path: Path
) -> None:
    config = replace(search_preset("stages", "quick", image_size=8), search_space=SPACE, dataset=str(store_path))
    path = write_config(tmp_path, config)
    done = here("search", "--config", path, "--run", tmp_path / "run", "--latency", goal, check=False)
    assert complaint in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_a_table_is_measured_once_and_told(store_path: Path, tmp_path: Path) -> None:
    options = ("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    done = here(*options)
    first = json.loads(done.stdout)
    total = first["rows"] + 70
    told = re.findall(rf"^profile: (\d+) of {total} networks", done.stderr, re.MULTILINE)
    assert len(told) > 2  # without a terminal, too, one sees it going on
    assert int(told[-1]) == total
    written = Path(first["path"]).stat().st_mtime_ns
    assert json.loads(here(*options).stdout) == first
    assert Path(first["path"]).stat().st_mtime_ns == written
    assert first["fit"]["held_out"] == 30
    assert "median error" in here("latency", "show", first["path"]).stdout
    here(*options, "--force")
    assert Path(first["path"]).stat().st_mtime_ns > written


@pytest.mark.parametrize(
    "damage", ["[]", "{", '{"setting": SETTING, "is_noisy": false, "rows": [["x", 1]]}', '{"setting": SETTING}']
)
def test_a_damaged_part_of_a_table_is_measured_anew(damage: str, store_path: Path) -> None:
    options = ("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    first = json.loads(here(*options).stdout)
    part = Path(first["path"] + ".part")
    part.write_text(damage.replace("SETTING", json.dumps(first["setting"])))
    done = here(*options, "--force")
    assert f"{part} is damaged (" in done.stderr
    assert json.loads(done.stdout)["rows"] == first["rows"]
    assert not part.exists()


@pytest.mark.parametrize("disturbed", ["never", "rows", "networks"])
def test_a_table_is_noisy_where_anything_of_it_was_measured_on_a_noisy_machine(
    disturbed: str, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(networks: Sequence[Untrained | bytes], **settings: Any) -> Latencies:
        are_rows = not isinstance(networks[0], SpecOf)
        reasons = ("others took the cores",) if disturbed == ("rows" if are_rows else "networks") else ()
        return replace(pretend(networks, **settings), disturbances=reasons)

    monkeypatch.setattr(profiling, "measure", noisy)
    done = here("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    assert json.loads(done.stdout)["is_noisy"] == (disturbed != "never")
    told = done.stderr.count("the machine is noisy: others took the cores")
    assert told == (disturbed != "never")  # once, however many sittings were disturbed
    again = here("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    assert ("was measured while other work ran" in again.stderr) == (disturbed != "never")


def test_a_part_of_a_table_keeps_that_it_is_noisy(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy_until_interrupted(networks: Sequence[Untrained | bytes], **settings: Any) -> Latencies:
        if isinstance(networks[0], SpecOf):
            raise KeyboardInterrupt
        return replace(pretend(networks, **settings), disturbances=("others took the cores",))

    options = ("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "measure", noisy_until_interrupted)
        assert here(*options, check=False).exit_code != 0
    assert json.loads(here(*options).stdout)["is_noisy"]


def test_an_interrupted_profile_goes_on_with_the_blocks_it_has(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("latency", "profile", "--space", "macro", "--dataset", str(store_path), "--json")
    asked = 0

    def interrupted(networks: Sequence[Untrained | bytes], **settings: Any) -> Latencies:
        nonlocal asked
        asked += len(networks)
        if asked > 60:
            raise KeyboardInterrupt
        return pretend(networks, **settings)

    monkeypatch.setattr(profiling, "measure", interrupted)
    assert here(*options, check=False).exit_code != 0
    measured = 0

    def counted(networks: Sequence[Untrained | bytes], **settings: Any) -> Latencies:
        nonlocal measured
        measured += len(networks)
        return pretend(networks, **settings)

    monkeypatch.setattr(profiling, "measure", counted)
    rows = json.loads(here(*options).stdout)["rows"]
    assert measured < rows + 70


def test_a_search_stopped_while_its_table_is_measured_says_how_to_go_on(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Latencies:
        raise KeyboardInterrupt

    monkeypatch.setattr(profiling, "measure", interrupted)
    run = tmp_path / "run"
    done = here("search", "--dataset", str(store_path), "--run", str(run), "--resume", check=False)
    assert done.exit_code == 130
    assert f"a new search in {run}: stages networks for {store_path}, preset quick" in done.stderr
    assert "stopped; go on with: enas " in done.stderr  # with the options of the real command line
    assert not (run / "search").exists()
