"""`enas rank` on tiny searches: what it measures, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter import ranking
from exporter.ranking import kendall_tau
from searcher.training.epoch import DivergedError
from tests.end_to_end.conftest import Tiny, here

OPTIONS = ("--count", "3", "--epochs", "1", "--device", "cpu", "--jobs", "1")


@pytest.fixture
def searched(run: Path, tmp_path: Path) -> Path:
    """A copy of the run to write into."""
    return shutil.copytree(run, tmp_path / "run")


def test_a_ranking_compares_shared_weights_with_training_alone(searched: Path, tiny: Tiny) -> None:
    done = here("rank", searched, *OPTIONS)
    found = json.loads((searched / "ranking.json").read_text())
    metric, sign = ("perplexity", -1) if tiny.space == "recurrent" else ("accuracy", 1)
    assert found["metric"] == metric
    assert len(set(found["architectures"])) == 3
    assert found["tau"] == kendall_tau(found["shared"], [sign * x for x in found["alone"]])
    assert "Kendall's tau" in done.stdout.splitlines()[-1]
    for number in range(3):
        summary = json.loads((searched / f"ranking/{number:02d}/summary.json").read_text())
        assert summary["valid_score"] == found["alone"][number]
        assert f"test_{metric}" not in summary
    here("report", searched)
    assert "Kendall" in (searched / "report.html").read_text()
    found["spec_sha256"] = "0" * 64  # of another search
    (searched / "ranking.json").write_text(json.dumps(found))
    here("report", searched)
    assert "Kendall" not in (searched / "report.html").read_text()


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_a_ranking_goes_on_with_what_is_trained(searched: Path) -> None:
    here("rank", searched, *OPTIONS)
    whole = (searched / "ranking.json").read_text()
    kept = (searched / "ranking/00/summary.json").stat().st_mtime_ns
    (searched / "ranking/02/summary.json").unlink()
    assert here("rank", searched, *OPTIONS, check=False).exit_code != 0
    here("rank", searched, *OPTIONS, "--resume")
    assert (searched / "ranking.json").read_text() == whole
    assert (searched / "ranking/00/summary.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_an_architecture_that_diverges_comes_last(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, trained = ranking.train, 0

    def train(*arguments: Any, **options: Any) -> Any:
        nonlocal trained
        trained += 1
        if trained == 2:
            raise DivergedError("the loss is no longer a number")
        return original(*arguments, **options)

    monkeypatch.setattr(ranking, "train", train)
    done = here("rank", searched, *OPTIONS)
    assert "with its own it diverges" in done.stdout
    found = json.loads((searched / "ranking.json").read_text())
    assert [score is None for score in found["alone"]] == [False, True, False]
    worth = [-math.inf if score is None else score for score in found["alone"]]
    assert found["tau"] == kendall_tau(found["shared"], worth)
    here("rank", searched, *OPTIONS, "--resume")
    here("report", searched)


@pytest.mark.parametrize("tiny", ["macro"], indirect=True)
def test_what_cannot_be_ranked_is_said(searched: Path) -> None:
    (searched / "search/summary.json").unlink()
    done = here("rank", searched, *OPTIONS, check=False)
    assert "no search is finished there" in str(done.exception)
