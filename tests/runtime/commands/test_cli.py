import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from runtime.commands import score as cli
from runtime.models.model import Model, Prediction
from tests.foundation import sixteen_bits
from tests.runtime.command_runs import document_of, mistake, run
from tests.runtime.conftest import CLASSES, SHAPE, metadata, save, tiny_graph

# --- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    images = np.stack([np.full(SHAPE, brightness, np.uint8) for brightness in (0, 128, 255, 255)])
    chunk = (images, np.array([0, 1, 2, 1]))
    path = tmp_path / "brightness.h5"
    write_image_store(
        path,
        name="brightness",
        splits={"train": chunk, "test": chunk},
        classes=CLASSES,
        source="made up",
        licence="none",
    )
    return path


def test_evaluate_prints_accuracy_and_every_class(model_path: Path, store_path: Path) -> None:
    result = run(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    assert result.exit_code == 0
    assert "brightness, test: accuracy 75.00% (95 % interval 30.06% – 95.44%, 3 of 4 images)" in result.stdout
    assert "grey         2   50.0%     100.0%  bright 1" in result.stdout


def write_store(path: Path, shades: tuple[int, ...], labels: tuple[int, ...], classes: tuple[str, ...]) -> Path:
    """Test images of one shade each, and a train split that has every class."""
    images = np.stack([np.full(SHAPE, shade, np.uint8) for shade in shades])
    train = (np.stack([np.full(SHAPE, 9, np.uint8)] * len(classes)), np.arange(len(classes)))
    splits = {"train": train, "test": (images, np.array(labels))}
    write_image_store(path, name="brightness", splits=splits, classes=classes, source="made up", licence="none")
    return path


def test_balanced_accuracy_stands_beside_accuracy_where_classes_are_unequal(model_path: Path, tmp_path: Path) -> None:
    path = write_store(tmp_path / "x.h5", (0, 0, 0, 0, 0, 0, 0, 128), (0, 0, 0, 0, 0, 0, 1, 1), CLASSES)
    result = run(cli.evaluate, model_path, "--dataset", path, "-e", "cpu")
    assert "accuracy 87.50%" in result.stdout
    assert "balanced accuracy 75.00% (mean recall)" in result.stdout
    assert "no image of 'bright': nothing here speaks for them" in result.stdout
    assert document_of(cli.evaluate, model_path, "--dataset", path, "-e", "cpu")["balanced_accuracy"] == 0.75


def test_equal_classes_need_no_second_figure(model_path: Path, tmp_path: Path) -> None:
    path = write_store(tmp_path / "x.h5", (0, 128, 255), (0, 1, 2), CLASSES)
    assert "balanced" not in run(cli.evaluate, model_path, "--dataset", path, "-e", "cpu").stdout


def test_evaluate_says_how_far_probabilities_can_be_believed(model_path: Path, store_path: Path) -> None:
    document = document_of(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    calibration = document["calibration"]
    assert sum(one["count"] for one in calibration["bins"]) == 4
    result = run(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    assert f"calibration error {calibration['error']:.2%}" in result.stdout


def test_evaluate_draws_what_is_taken_for_what(model_path: Path, store_path: Path, tmp_path: Path) -> None:
    result = run(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu", "--export-plots", tmp_path / "plots")
    assert result.exit_code == 0, result.exception
    picture = (tmp_path / "plots" / "confusion.svg").read_text(encoding="utf-8")
    assert "Confusion: brightness, test" in picture
    assert "bright" in picture


def test_evaluate_writes_the_hashes_of_model_and_data(model_path: Path, store_path: Path) -> None:
    document = document_of(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    assert document["confusion"] == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert len(document["dataset"]["sha256"]) == len(document["sha256"]) == 64


def test_the_data_set_of_the_spec_is_the_default(model_path: Path, tmp_path: Path) -> None:
    assert f"{model_path} was trained on brightness, which is not in " in mistake(cli.evaluate, model_path, "-e", "cpu")
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata(spec=None))
    assert mistake(cli.evaluate, path, "-e", "cpu") == (
        f"{path} does not say what it was trained on: name a data set with --dataset"
    )


def test_data_of_the_same_name_that_are_others_are_scored_only_when_named(tmp_path: Path) -> None:
    store = write_store(tmp_path / "x.h5", (0, 128, 255), (0, 1, 2), CLASSES)
    spec = {"schema": 1, "task": {"dataset": str(store)}}
    known = {"dataset_sha256": load_images(str(store)).digest}
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata(spec=spec, producer=known))
    assert "accuracy 100.00%" in run(cli.evaluate, path, "-e", "cpu").stdout
    assert document_of(cli.evaluate, path, "--dataset", store, "-e", "cpu")["dataset"]["has_changed"] is False
    store.unlink()
    write_store(store, (0, 128), (0, 1), CLASSES)
    assert f"{store} is no longer the one that {path} was trained on" in mistake(cli.evaluate, path, "-e", "cpu")
    named = run(cli.evaluate, path, "--dataset", store, "-e", "cpu").stdout
    assert f"note: the data set {store} is no longer the one that {path} was trained on, so what" in named
    assert "accuracy 100.00%" in named
    assert document_of(cli.evaluate, path, "--dataset", store, "-e", "cpu")["dataset"]["has_changed"] is True


@pytest.mark.parametrize("spec", [{"schema": 1, "task": {"dataset": "pets"}}, None])
def test_data_of_another_name_are_not_said_to_have_changed(
    tmp_path: Path, store_path: Path, spec: dict[str, Any] | None
) -> None:
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata(spec=spec, producer={"dataset_sha256": "0" * 64}))
    result = run(cli.evaluate, path, "--dataset", store_path, "-e", "cpu")
    assert result.exit_code == 0
    assert "note" not in result.stdout


def test_text_is_not_scored_with_a_model_of_images(model_path: Path) -> None:
    message = mistake(cli.evaluate, model_path, "--dataset", "shakespeare", "-e", "cpu")
    assert message == f"shakespeare is a data set of text, but {model_path} is an image classifier"


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "night.png", tmp_path / "noon.jpg"]
    for path, brightness in zip(paths, (0, 255), strict=True):
        Image.new("RGB", (30, 20), (brightness,) * 3).save(path)
    return paths


def test_predict_names_the_likeliest_classes(model_path: Path, pictures: list[Path]) -> None:
    result = run(cli.predict, model_path, *pictures, "--top", "2", "-e", "cpu")
    assert result.exit_code == 0
    assert [line.split()[1::2] for line in result.stdout.splitlines()] == [["dark", "grey"], ["bright", "grey"]]
    assert result.stderr == "runs on CPU\n"


def test_predict_names_the_first_of_equally_likely_classes(
    model_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As argmax, `enas evaluate` and the server do."""
    equal = np.full((len(pictures), 3), 1 / 3, np.float32)
    monkeypatch.setattr(Model, "predict", lambda *_: Prediction(equal, equal))
    document = document_of(cli.predict, model_path, *pictures, "--top", "2", "-e", "cpu")
    named = [[one["class"] for one in row["classes"]] for row in document["predictions"]]
    assert named == 2 * [list(Model.open(model_path).classes[:2])]


def test_numbers_that_are_not_finite_are_no_answer(pictures: list[Path], tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.initializer[2].raw_data = np.full(len(CLASSES), np.nan, np.float32).tobytes()
    path = save(tmp_path / "nan.onnx", graph, metadata())
    result = run(cli.predict, path, *pictures, "-e", "cpu", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["predictions"] == []
    assert [one["error"] for one in document["failures"]] == ["the model answers with numbers that are not finite"] * 2


def test_predict_says_how_deep_pixels_were_scaled(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(sixteen_bits.png(np.full((20, 30, 3), 4095, np.uint16)))
    result = run(cli.predict, model_path, path, "-e", "cpu")
    assert result.stdout.split()[1] == "bright"
    assert f"{path}: no value above 4095: read as 12 bits a pixel" in result.stderr.splitlines()


def test_predict_writes_a_document(model_path: Path, pictures: list[Path]) -> None:
    document = document_of(cli.predict, model_path, *pictures, "-e", "cpu")
    night, noon = document["predictions"]
    assert night["image"] == str(pictures[0])
    assert [best["class"] for best in night["classes"]] == ["dark", "grey", "bright"]
    assert sum(best["probability"] for best in noon["classes"]) == pytest.approx(1)


def test_more_pictures_than_a_batch_are_all_classified(model_path: Path, pictures: list[Path]) -> None:
    document = document_of(cli.predict, model_path, *(pictures * 40), "-e", "cpu")
    assert [row["classes"][0]["class"] for row in document["predictions"]] == ["dark", "bright"] * 40


def test_a_picture_that_is_none_is_told(model_path: Path, pictures: list[Path]) -> None:
    result = run(cli.predict, model_path, pictures[0], model_path, pictures[1], "-e", "cpu")
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["dark", "bright"]
    assert result.stderr.splitlines()[1:] == [f"error: {model_path}: not a picture"]


def test_failures_stand_beside_the_answers_in_the_document(model_path: Path, pictures: list[Path]) -> None:
    result = run(cli.predict, model_path, pictures[0], "gone.png", "-e", "cpu", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [row["image"] for row in document["predictions"]] == [str(pictures[0])]
    assert document["failures"] == [{"image": "gone.png", "error": "no such file"}]


def test_a_folder_stands_for_its_pictures(model_path: Path, pictures: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "album"
    (folder / "inner").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "notes.txt").write_text("no picture, and not called one")
    for path, place in zip(pictures * 2, ("b.png", "inner/a.jpg", "no-suffix", ".hidden/c.jpg"), strict=True):
        shutil.copy(path, folder / place)
    document = document_of(cli.predict, model_path, folder, "-e", "cpu")
    found = [(Path(row["image"]).name, row["classes"][0]["class"]) for row in document["predictions"]]
    assert found == [("b.png", "dark"), ("no-suffix", "dark"), ("a.jpg", "bright")]
    (folder / "cut.png").write_bytes(pictures[0].read_bytes()[:40])
    assert run(cli.predict, model_path, folder, "-e", "cpu").exit_code == 1


def test_a_folder_without_a_picture_is_refused(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert mistake(cli.predict, model_path, tmp_path / "empty", "-e", "cpu") == f"{tmp_path}/empty: holds no picture"


def test_predictions_are_a_table_for_spreadsheets(model_path: Path, pictures: list[Path]) -> None:
    result = run(cli.predict, model_path, *pictures, "-e", "cpu", "--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["image"], row["class"], row["class_2"]) for row in rows] == [
        (str(pictures[0]), "dark", "grey"),
        (str(pictures[1]), "bright", "grey"),
    ]
    assert float(rows[0]["probability"]) > float(rows[0]["probability_2"])


def test_a_table_has_no_more_columns_than_the_model_has_classes(model_path: Path, pictures: list[Path]) -> None:
    result = run(cli.predict, model_path, *pictures, "-e", "cpu", "--csv", "--top", "5")
    assert [len(row) for row in csv.reader(io.StringIO(result.stdout))] == [1 + 2 * len(CLASSES)] * 3


def test_names_are_shown_without_what_a_terminal_would_obey(model_path: Path, tmp_path: Path) -> None:
    names = ["a\nb.png", "\x1b[31mred.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        Image.new("L", (8, 6)).save(tmp_path / name)
    result = run(cli.predict, model_path, *(tmp_path / name for name in names), "-e", "cpu")
    shown = [line.split("/")[-1].split()[0] for line in result.stdout.splitlines()]
    assert shown == [r"a\nb.png", r"\x1b[31mred.png", r"caf\xe9.png"]


def test_a_drawing_on_a_transparent_ground_is_seen_on_white(model_path: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 6), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    document = document_of(cli.predict, model_path, tmp_path / "clear.png", "-e", "cpu")
    assert document["predictions"][0]["classes"][0]["class"] == "bright"


# --- the process ------------------------------------------------------------------------------------------------------


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is not a model", encoding="utf-8")
    for command in (["benchmark", path], ["evaluate", path], ["predict", path, "x.png"]):
        ended = subprocess.run([sys.executable, "-m", "runtime", *command], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"error: {path}: not an ONNX file, or one cut short (19 bytes)\n"


def test_a_missing_cuda_leaves_no_log_lines_of_onnxruntime(model_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "runtime", "benchmark", model_path, "-b", "1", "-t", "0.05", "-r", "1", "--warmup", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    runs_on, point = ended.stderr.splitlines()
    assert re.fullmatch(r"runs on (CPU( \(CUDA cannot be used: .*\))?|CUDA.*)", runs_on)
    assert point == f"single-stream, batch 1: {model_path}"
    assert "onnxruntime:Default" not in ended.stdout


def _imported_by(statement: str) -> set[str]:
    listing = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_command_line_loads_nothing_slow() -> None:
    loaded = _imported_by("import runtime.commands.score, runtime.commands.benchmark")
    assert not loaded & {"torch", "onnx", "onnxruntime", "numpy", "PIL", "h5py", "tqdm"}


def test_no_module_of_the_runtime_loads_torch_or_onnx() -> None:
    root = Path(cli.__file__).parents[2]
    paths = [path.relative_to(root) for path in (root / "runtime").rglob("*.py") if not path.stem.startswith("__")]
    assert len(paths) > 60
    modules = ", ".join(".".join(path.with_suffix("").parts) for path in paths)
    assert not _imported_by(f"import {modules}") & {"torch", "onnx", "searcher", "exporter"}
