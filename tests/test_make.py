"""What `make` hands to the command line, by its variables."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from searcher.arch.space import SPACES
from searcher.presets.datasets import default_dataset
from searcher.spaces import search_space

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize("space", sorted(SPACES))
def test_make_and_the_command_line_name_runs_alike(space: str) -> None:
    for preset in search_space(space).presets.PRESETS:
        dataset = default_dataset(space, preset)
        done = subprocess.run(
            ["make", "-n", "search", "retrain", f"SPACE={space}", f"PRESET={preset}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"--run 'runs/{space}-{dataset}-{preset}' " in done.stdout
        assert f"enas retrain 'runs/{space}-{dataset}-{preset}' " in done.stdout


def made(*words: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    return subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("my.flowers", "my.flowers"),
        ("path/to/my.flowers.h5", "my.flowers"),
        ("flowers", "flowers"),
        ("my path/to my/wild flowers.h5", "wild flowers"),
    ],
)
def test_make_names_a_run_by_the_whole_name_of_its_data_set(dataset: str, name: str) -> None:
    told = made("search", f"DATASET={dataset}").stdout
    assert f"--dataset '{dataset}' --run 'runs/stages-{name}-quick' " in told


@pytest.mark.parametrize("target", ["evaluate", "benchmark", "serve"])
def test_make_runs_models_where_device_says(target: str) -> None:
    assert " --provider cpu" in made(target, "DEVICE=cpu").stdout


def test_make_takes_a_run_whose_name_has_spaces() -> None:
    targets = ("search", "retrain", "export", "verify", "evaluate", "benchmark", "serve", "report", "bench-serving")
    for line in made(*targets, "RUN=a b", "DATASET=two").stdout.splitlines():
        if "runs/a" in line:
            assert "runs/a b" in shlex.split(line)


@pytest.mark.parametrize(("config", "derives"), [("[latency]\ntarget_ms = 1.0\n", True), ("[policy]\n", False)])
def test_make_derives_where_the_search_has_a_latency_target(config: str, derives: bool, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "config.toml").write_text(f"seed = 0\n\n{config}")
    words = ["make", "-s", "search", "DATASET=flowers", "ENAS=echo", "READY=", f"RUN_DIR={tmp_path}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    commands = [line.split()[0] for line in done.stdout.splitlines()]
    assert commands == ["search", "derive"][: 1 + derives]


@pytest.mark.parametrize(("flip", "option"), [("yes", " --flip "), ("no", " --no-flip "), ("", None)])
def test_make_hands_flip_to_both_trainings(flip: str, option: str | None) -> None:
    lines = made("search", "retrain", "DATASET=flowers", f"FLIP={flip}").stdout.splitlines()
    for command in ("enas search", "enas retrain"):
        (line,) = (line for line in lines if command in line)
        assert ("flip" not in line) if option is None else (option in line)


@pytest.mark.parametrize("flip", ["NO", "false", "yes no"])
def test_make_refuses_a_flip_that_is_neither_yes_nor_no(flip: str) -> None:
    done = made("search", f"FLIP={flip}")
    assert done.returncode != 0
    assert f"FLIP is '{flip}'; expected yes, no, or nothing" in done.stderr


def test_make_alone_lists_the_targets() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("search", "retrain", "export", "test", "benchmark"):
        assert f"make {target} " in done.stdout
    assert "SPACE=stages" in done.stdout
