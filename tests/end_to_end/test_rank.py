"""`enas rank` on tiny searches: what it measures, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter.ranking import kendall_tau
from tests.end_to_end.conftest import Tiny, here

OPTIONS = ("--count", "3", "--epochs", "1", "--device", "cpu")


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
        assert summary[f"valid_{metric}"] == found["alone"][number]
        assert f"test_{metric}" not in summary
    here("report", searched)
    assert "Kendall" in (searched / "report.html").read_text()


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
def test_what_cannot_be_ranked_is_said(searched: Path) -> None:
    (searched / "search/summary.json").unlink()
    done = here("rank", searched, *OPTIONS, check=False)
    assert "no search is finished there" in str(done.exception)
