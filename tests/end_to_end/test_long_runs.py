"""Runs with a limit on their time, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from enas import build_group
from searcher.running.distributed import ALONE, World
from searcher.running.interrupt import Stopped
from tests.end_to_end.conftest import Tiny, here


@pytest.mark.parametrize("tiny", ["recurrent"], indirect=True)
def test_a_run_out_of_time_exits_75_and_says_how_to_go_on(
    tmp_path: Path, tiny: Tiny, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    for stage, arguments in (("search", tiny.search(path)), ("retrain", tiny.retrain(path))):
        words = [*map(str, arguments), "--max-hours", "1e-9"]
        monkeypatch.setattr("sys.argv", ["enas", *words])
        done = CliRunner().invoke(build_group(), words)
        assert done.exit_code == 75
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"stopped at the limit of --max-hours; go on with: enas {stage} ")
        assert last.endswith(" --resume")
        # The cell and its LSTM are trained in processes of their own, which may not have begun by then.
        assert stage == "retrain" or (path / stage / "checkpoint.pt").is_file()
        here(*arguments, "--resume")
    assert (path / "spec.json").read_bytes() == (run / "spec.json").read_bytes()


def test_a_process_that_stops_has_left_the_others_before_it_exits(
    tmp_path: Path, search_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings: list[type[BaseException]] = []

    @contextmanager
    def watched(_: object) -> Iterator[World]:
        try:
            yield ALONE
        except BaseException as error:
            endings.append(type(error))
            raise

    monkeypatch.setattr("searcher.running.distributed.joined", watched)
    words = ["--config", search_config, "--run", tmp_path / "run", "--max-hours", "1e-9"]
    assert here("search", *words, check=False).exit_code == 75
    assert endings == [Stopped]


def test_under_torchrun_out_of_time_is_no_failure_and_the_advice_names_the_launcher(
    tmp_path: Path, search_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["search", "--config", str(search_config), "--run", str(tmp_path / "run"), "--max-hours", "1e-9"]
    monkeypatch.setattr("sys.argv", ["enas.py", *words])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    done = CliRunner().invoke(build_group(), words)
    assert done.exit_code == 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("stopped at the limit of --max-hours; go on with: torchrun … -m enas -- search --config ")
