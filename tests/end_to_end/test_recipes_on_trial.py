"""`make recipes`: one change of a training at a time, and the table that it comes to."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from searcher.arch.catalog import published_spec
from searcher.arch.spec import write_spec
from tests.benchmarks import recipes
from tests.benchmarks.recipes import Trial, table


def test_differences_are_taken_seed_by_seed() -> None:
    scores = {
        Trial("net", 5, "the preset", 0): 0.70,
        Trial("net", 5, "the preset", 1): 0.74,
        Trial("net", 5, "mixup", 0): 0.71,
        Trial("net", 5, "mixup", 1): 0.76,
        Trial("net", 5, "AdamW", 0): 0.71,
        Trial("net", 5, "AdamW", 1): None,
    }
    assert list(table(scores, recipes=["the preset", "mixup", "AdamW"])) == [
        "| recipe | net, 5 epochs |",
        "| --- | ---: |",
        "| the preset | 72.00 ± 2.00 % |",
        "| mixup | +1.50 ± 0.50 |",
        "| AdamW | diverges |",
    ]


def test_recipes_are_trained_once_and_told(store_path: Path, tmp_path: Path) -> None:
    network = tmp_path / "small.json"
    write_spec(network, published_spec("inverted-small"))
    options = ["--dataset", store_path, "--network", network, "--epochs", 1, "--seeds", 1, "--jobs", 1]
    options += ["--recipe", "mixup 0.2", "--recipe", "batch_size=16", "--out", tmp_path / "out"]
    done = CliRunner().invoke(recipes.main, list(map(str, options)), catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines[-3:]] == ["the preset", "mixup 0.2", "batch_size=16"]
    configs = sorted((tmp_path / "out").rglob("config.toml"))
    assert [("mixup = 0.2" in path.read_text(), "batch_size = 16" in path.read_text()) for path in configs] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    trained = [path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("summary.json")]
    again = CliRunner().invoke(recipes.main, list(map(str, options)), catch_exceptions=False)
    assert again.stdout == done.stdout
    assert [path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("summary.json")] == trained
