"""Which models there are, by their names, and which are passed over."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.models.artifact import ArtifactError
from runtime.serving.models.layout import find_models
from tests.runtime import language_models


def test_a_file_is_a_model_of_its_name(model_path: Path) -> None:
    assert find_models(model_path) == {"tiny": {"1": model_path}}


def test_a_run_is_a_model_of_its_name_and_one_more_of_whole_sequences(tmp_path: Path, run_directory: Path) -> None:
    assert find_models(run_directory) == {"run": {"1": run_directory / "model.onnx"}}
    assert find_models(run_directory / "model.onnx") == {"run": {"1": run_directory / "model.onnx"}}
    assert set(find_models(language_models.save_run(tmp_path / "cats"))) == {"cats", "cats-sequence"}


@pytest.mark.parametrize("mark", ["search/config.toml", "retrain/config.toml"])
def test_the_other_forms_of_a_run_do_not_take_its_models_place(run_directory: Path, mark: str) -> None:
    (run_directory / "model.onnx").rename(run_directory / "model-fp16.onnx")
    (run_directory / mark).parent.mkdir(exist_ok=True)
    (run_directory / mark).touch()
    with pytest.raises(ArtifactError, match=r"run: no model\.onnx in this directory; `enas export` writes it$"):
        find_models(run_directory)


def test_models_of_a_folder_may_be_called_as_a_runs_stages(tmp_path: Path) -> None:
    for name in ("search", "retrain"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").touch()
    assert set(find_models(tmp_path)) == {"search", "retrain"}


def test_a_folder_holds_models_in_every_layout(tmp_path: Path) -> None:
    for path in (
        "a/1/model.onnx",
        "a/12/model.onnx",
        "a/03/model.onnx",
        "a/x/model.onnx",
        "a/4/other.onnx",
        "run/model.onnx",
        "file.onnx",
        ".hidden/1/model.onnx",
        "a b/1/model.onnx",
        "empty/notes.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find_models(tmp_path)
    assert {name: list(versions) for name, versions in found.items()} == {"a": ["1", "12"], "file": ["1"], "run": ["1"]}


def test_where_there_is_no_model_one_is_told_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model\.onnx, and no folder of models: expected NAME/1/model\.onnx"):
        find_models(tmp_path)
    with pytest.raises(ArtifactError, match=r"nowhere: no such file or directory"):
        find_models(tmp_path / "nowhere")


def test_models_that_are_not_served_are_told_each_with_its_reason(tmp_path: Path) -> None:
    for path in (
        "a/model.onnx",
        "a.onnx",
        "b/1/model.onnx",
        "b/latest/model.onnx",
        "mein modell/2/model.onnx",
        "übung.onnx",
        "-dash.onnx",
        "lost+found/notes.txt",
        ".half.onnx",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    told: dict[str, str] = {}
    found = find_models(tmp_path, pass_over=lambda path, why: told.update({str(path.relative_to(tmp_path)): why}))
    assert found == {"a": {"1": tmp_path / "a.onnx"}, "b": {"1": tmp_path / "b/1/model.onnx"}}
    allowed = "letters, digits, '.', '_' and '-' can, 128 in all, no '-' first"
    assert told == {
        "a/model.onnx": f"{tmp_path}/a.onnx is called 'a', too, and is served",
        "b/latest/model.onnx": "'latest' is no version: 1, 2 and so on are",
        "mein modell/2/model.onnx": f"'mein modell' cannot be the name of a model: {allowed}",
        "übung.onnx": f"'übung' cannot be the name of a model: {allowed}",
        "-dash.onnx": f"'-dash' cannot be the name of a model: {allowed}",
    }


def test_where_all_models_are_passed_over_the_error_says_why(tmp_path: Path) -> None:
    (tmp_path / "übung.onnx").touch()
    with pytest.raises(ArtifactError, match=r"`enas export` writes them; .*übung\.onnx: 'übung' cannot be the name"):
        find_models(tmp_path)


@pytest.mark.parametrize("closed", ["lost+found", "m/private"])
def test_a_folder_that_is_closed_to_us_and_no_model_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/model.onnx").touch()
    (tmp_path / closed).mkdir()

    def is_file(path: Path, of: Callable[[Path], bool] = Path.is_file) -> bool:
        if (tmp_path / closed) in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return of(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert set(find_models(tmp_path)) == {"m"}
