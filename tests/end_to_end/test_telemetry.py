"""The commands that train or measure with torch beside onnxruntime send nothing home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Tiny
from tests.runtime.watched import Watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.parametrize("tiny", ["micro"], indirect=True)]
_COMPARE = ("--seeds", "2", "--random", "2", "--epochs", "1", "--jobs", "1", "--device", "cpu")


@pytest.mark.parametrize(
    "words",
    [
        ["export", "{run}"],
        ["verify", "{run}"],
        ["compare", "{run}", *_COMPARE],
        ["latency", "profile", "--space", "micro", "--dataset", "{store}"],
        ["search", "--space", "micro", "--config", "{config}", "--run", "{new}", "--latency", "1000ms"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_writes_nothing_into_the_home_directory_and_talks_to_nobody(
    words: list[str], run: Path, tiny: Tiny, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    inputs = {
        "run": tmp_path / "run",
        "new": tmp_path / "new",
        "store": tiny.store_path,
        "config": tiny.search_config,
    }
    watch = Watch(tmp_path)
    watch.run(*(word.format_map(inputs) for word in words))
    watch.check()
