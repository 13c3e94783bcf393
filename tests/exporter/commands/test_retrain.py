"""What `enas retrain` leaves of an earlier retraining."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from exporter.retraining import trainings
from exporter.retraining.request import RetrainOptions, retrain_request
from searcher.running.run_folder import RunFolder
from tests.end_to_end import conftest as tiny

text_path = tiny.text_path


@pytest.mark.parametrize("executor", [(), ("--executor", "127.0.0.1:1")], ids=["here", "side by side"])
def test_a_command_that_is_refused_keeps_the_earlier_lstm(
    text_path: Path, tmp_path: Path, executor: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "_WAIT_FOR_ORPHANS_S", 0.0)
    spec = "enas-recurrent-published"
    options = RetrainOptions(source=Path(spec), run_path=tmp_path, dataset=str(text_path), preset="quick")
    request = retrain_request(options, say=print)
    RunFolder.open(tmp_path / "retrain-lstm", request.configs["lstm"]).close()
    with closing(RunFolder.open(tmp_path / "retrain", request.config)):  # as another process does
        command = ("retrain", spec, "--run", tmp_path, "--dataset", text_path, "--preset", "quick", "--device", "cpu")
        refused = tiny.here(*command, "--no-lstm", "--force", *executor, check=False)
    assert "retrain is in use by another process" in str(refused.exception)
    assert RunFolder(tmp_path / "retrain-lstm").begun
