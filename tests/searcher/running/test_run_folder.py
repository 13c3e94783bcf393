"""What a run leaves on disk: checkpoints, metrics, its folder."""

from __future__ import annotations

import errno
import math
import os
import pickle
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.retraining.presets import retrain_preset
from exporter.selection.halving import HalvingConfig
from foundation import files
from foundation.document import DocumentError
from searcher.running import run_folder
from searcher.running.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from searcher.running.metrics import MetricsLog, read_metrics
from searcher.running.run_folder import Opening, RunError, RunFolder, lock_file
from tests.searcher.toy import PLAIN


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"tensor": torch.randn(3, 4), "list": [1, 2.5, "x"], "nan": math.inf}
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor"))  # type: ignore[call-overload]
    assert loaded == state


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/should-not-exist-enas"),))


@pytest.mark.parametrize("kind", ["malicious", "truncated", "garbage", "empty", "missing"])
def test_a_checkpoint_that_is_none_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.pt"
    if kind == "malicious":
        torch.save({"x": Malice()}, path)
    elif kind == "truncated":
        save_checkpoint(path, {"x": torch.randn(1000)})
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "garbage":
        path.write_bytes(pickle.dumps(3)[::-1] * 50)
    elif kind == "empty":
        path.touch()
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)
    assert not Path("/tmp/should-not-exist-enas").exists()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"epoch": 1})

    def full(_: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"epoch": 2})
    monkeypatch.undo()
    assert load_checkpoint(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    interrupted = KeyboardInterrupt()

    def write_half() -> None:
        with files.whole_file(path) as temporary:
            temporary.write_text("half")
            raise interrupted

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not list(tmp_path.iterdir())
    files.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_metrics_are_cut_back_to_the_checkpoints_position(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.append({"epoch": 1, "loss": 1.23456789}, step=0)
    position = log.position
    log.append({"epoch": 2, "loss": 0.5}, step=1)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # a line cut short by a kill
    again = MetricsLog(tmp_path, position=position, next_step=1)
    again.append({"epoch": 2, "loss": 0.25}, step=1)
    again.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"epoch": 1, "loss": 1.23457}, {"epoch": 2, "loss": 0.25}]


@pytest.mark.parametrize(("left", "epochs"), [('{"epoch": 1}\n{"ep', [1, 3]), ("", [3])])
def test_metrics_that_are_lost_are_told_of_and_a_half_line_is_dropped(
    left: str, epochs: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(left)
    log = MetricsLog(tmp_path, position=26, next_step=2)
    log.append({"epoch": 3}, step=2)
    log.close()
    assert [record["epoch"] for record in read_metrics(path)] == epochs
    assert capsys.readouterr().err == f"{path}: records of earlier epochs are lost; going on without them\n"


def test_reading_metrics_leaves_out_a_line_cut_short(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"epoch": 1}\n{"epoch"')
    assert read_metrics(tmp_path / "m.jsonl") == [{"epoch": 1}]


def test_a_folder_resumes_only_with_its_own_configuration(tmp_path: Path) -> None:
    path = tmp_path / "search"
    RunFolder.open(path, PLAIN, Opening(again="enas x"))
    with pytest.raises(RunError, match=r"already holds an unfinished run: `enas x --resume` goes on with it"):
        RunFolder.open(path, PLAIN, Opening(again="enas x"))
    RunFolder.open(path, PLAIN, Opening(resume=True, again="enas x"))
    with pytest.raises(RunError, match=r"another configuration \(learning_rate was 0.1, now 0.2\)"):
        RunFolder.open(path, replace(PLAIN, learning_rate=0.2), Opening(resume=True, again="enas x"))


@pytest.mark.parametrize("deleted", [1, 2, 4])
@pytest.mark.parametrize("opening", [Opening(force=True), Opening(resume=True)], ids=["force", "resume"])
def test_a_run_that_was_killed_while_it_was_deleted_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted: int, opening: Opening
) -> None:
    path = tmp_path / "search"
    RunFolder.open(path, PLAIN).close()
    for name in ("summary.json", "metrics.jsonl", "checkpoint.pt", "best.pt"):
        (path / name).write_text("{}")
    unlink, left = Path.unlink, [deleted]

    def killed(self: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.open(path, PLAIN, Opening(force=True))
    folder = RunFolder.open(path, PLAIN, opening)
    assert not folder.finished
    folder.close()


def test_a_folder_that_could_not_be_opened_is_free(tmp_path: Path) -> None:
    path = tmp_path / "search"
    RunFolder.open(path, PLAIN, Opening(again="enas x")).close()
    (path / "config.toml").write_text("learning_rate =")
    with pytest.raises(DocumentError) as refused:  # which keeps the folder from being collected
        RunFolder.open(path, PLAIN, Opening(resume=True, again="enas x"))
    assert "not valid TOML" in str(refused.value)
    RunFolder.open(path, PLAIN, Opening(force=True, again="enas x")).close()


def test_a_wait_for_another_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_folder, "_SILENT_WAIT_S", 0.2)
    with closing(lock_file(tmp_path / ".lock")):
        with pytest.raises(RunError, match="is in use by another process"):
            lock_file(tmp_path / ".lock", wait_s=0.1)
        assert capsys.readouterr().err == ""
        with pytest.raises(RunError, match="is in use by another process"):
            lock_file(tmp_path / ".lock", wait_s=0.6)
        assert capsys.readouterr().err == f"waiting for another process that uses {tmp_path}\n"


def test_a_run_begins_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    folder = RunFolder.open(tmp_path / "search", PLAIN, Opening())
    assert not folder.finished
    folder.close()


def test_resume_is_not_advised_where_it_would_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "search"
    RunFolder.open(path, PLAIN, Opening(again="enas x")).close()
    with pytest.raises(RunError) as refused:
        RunFolder.open(path, replace(PLAIN, learning_rate=0.2), Opening(again="enas x"))
    assert str(refused.value) == (
        f"{path} was made with another configuration (learning_rate was 0.1, now 0.2): go on with the options that it "
        "was begun with and --resume, or start anew with `enas x --force`"
    )


def test_options_are_advised_where_another_data_set_came_with_another_network(tmp_path: Path) -> None:
    path = tmp_path / "retrain"
    begun = replace(retrain_preset("micro", "quick"), spec_sha256="a", dataset_sha256="a")
    RunFolder.open(path, begun, Opening(again="enas x")).close()
    other = replace(retrain_preset("micro", "quick"), spec_sha256="b", dataset_sha256="b")
    with pytest.raises(RunError, match="go on with the options that it was begun with and --resume"):
        RunFolder.open(path, other, Opening(resume=True, again="enas x"))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xe9s")
    with pytest.raises(RunError, match=r"r\\xe9s: a name that is not UTF-8"):
        RunFolder.open(path, PLAIN, Opening(again="enas x"))
    assert not path.exists()


def test_options_are_not_advised_where_the_network_or_the_data_are_others(tmp_path: Path) -> None:
    path = tmp_path / "search"
    RunFolder.open(path, HalvingConfig(spec_sha256="a"), Opening(again="enas x")).close()
    with pytest.raises(RunError) as refused:
        RunFolder.open(path, HalvingConfig(spec_sha256="b"), Opening(resume=True, again="enas x"))
    assert str(refused.value).endswith("(spec_sha256 was 'a', now 'b'): start anew with `enas x --force`")


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "search", PLAIN)
    save_checkpoint(folder.checkpoint_path, {"epoch": 1})
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this kind \(no metrics_position, seconds\)"):
        folder.restore()
