"""`enas export` on a run that is no longer whole, or that never had a search: what it keeps, and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Tiny, here

pytestmark = pytest.mark.parametrize("tiny", ["stages"], indirect=True)


def test_an_export_that_fails_or_is_stopped_removes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    here("export", copy, "--resize-inside")
    (copy / "model-int8.onnx").write_bytes(b"somebody's")
    before = sorted(path.name for path in copy.iterdir())

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("exporter.delivery.export.convert", stopped)
        here("export", copy, check=False)
    shutil.rmtree(copy / "retrain")
    refused = here("export", copy, check=False)
    assert "the retraining is missing" in str(refused.exception)
    before.remove("retrain")
    assert sorted(path.name for path in copy.iterdir()) == before


def test_forms_of_an_earlier_model_go_where_an_export_was_killed_before_it_removed_them(
    run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model-int8.onnx").write_bytes(b"an earlier model's")
    (copy / "variants.json").write_text('{"model_sha256": "of an earlier model", "trials": []}')
    here("export", copy, "--resume")
    assert not (copy / "model-int8.onnx").exists()
    assert not (copy / "variants.json").exists()


def test_where_the_model_cannot_go_is_said_before_it_is_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("exporter.delivery.export.convert", convert)
    copy = shutil.copytree(run, tmp_path / "no name")
    refused = here("export", copy, "--triton", tmp_path / "repository", check=False)
    assert "'no name' cannot be the name of a model" in str(refused.exception)
    refused = here("export", copy, "--web", copy / "retrain", check=False)
    assert f"{copy / 'retrain'}: there is something else" in str(refused.exception)


def test_a_given_spec_goes_the_whole_way_without_a_search(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    options = ("--config", tiny.retrain_config, "--device", "cpu")
    here("retrain", run / "spec.json", "--run", alone, *options)
    assert not (alone / "spec.json").exists()
    here("export", alone, "--resize-inside", "--half", "--for", "elsewhere")
    here("verify", alone)
    here("spec", "show", alone)
    here("report", alone)
    here("retrain", alone, *options, "--resume")
    (alone / "retrain" / "best.pt").unlink()
    refused = here("export", alone, check=False)
    assert f"`enas retrain {alone} --resume`" in str(refused.exception)


def test_a_file_where_a_run_belongs_is_named(run: Path) -> None:
    model = run / "model.onnx"
    for command in ("export", "verify", "report", "watch"):
        refused = here(command, model, check=False)
        assert "a file; expected the directory of a run" in str(refused.exception)
