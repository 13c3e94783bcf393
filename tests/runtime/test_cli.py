import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from datasets.store_writer import write_image_store
from runtime import cli
from tests.runtime.conftest import CLASSES, SHAPE, metadata, save, tiny_graph

# Enough to see every path, too little to mean anything.
QUICK = ["--provider", "cpu", "-t", "0.05", "--warmup", "0.05", "-r", "1"]


class _Peers:
    """A stand-in for torch: gives logits of the right shape, or is interrupted at a given call."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.calls = 0
        self.interrupt_at = interrupt_at

    def torch_eager(self, run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        def predict(images: np.ndarray) -> np.ndarray:
            self.calls += 1
            if self.calls == self.interrupt_at:
                raise KeyboardInterrupt
            return np.zeros((len(images), len(CLASSES)), np.float32)

        return predict


def _run(command: click.Command, *arguments: str | Path, peers: Any = None) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], obj=peers)


def _document(command: click.Command, *arguments: str | Path, peers: Any = None) -> dict[str, Any]:
    result = _run(command, *arguments, "--json", peers=peers)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def _mistake(command: click.Command, *arguments: str | Path, peers: Any = None) -> str:
    error = _run(command, *arguments, peers=peers).exception
    assert isinstance(error, ValueError)
    return str(error)


# --- benchmark --------------------------------------------------------------------------------------------------------


def test_benchmark_prints_a_row_for_every_batch_size(model_path: Path) -> None:
    result = _run(cli.benchmark, model_path, "-b", "1,2", "-b", "4", *QUICK)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(f"{model_path}  ")]
    assert [row[1] for row in rows] == ["1", "2", "4"]


def test_benchmark_keeps_stdout_for_the_document(model_path: Path) -> None:
    document = _document(cli.benchmark, model_path, "-b", "2", "--intra-op-threads", "1", "--seed", "3", *QUICK)
    assert (document["intra_op_threads"], document["seed"]) == (1, 3)
    assert [point["batch_size"] for point in document["points"]] == [2]
    assert document["baseline"] is None


def test_the_same_file_twice_has_two_names_and_a_ratio(model_path: Path) -> None:
    document = _document(cli.benchmark, model_path, model_path, "-b", "1", *QUICK)
    assert [point["name"] for point in document["points"]] == [str(model_path), f"{model_path} #2"]
    assert document["points"][0]["speed"] is None
    assert document["points"][1]["speed"]["value"] > 0


def test_a_run_keeps_its_benchmark(run_directory: Path) -> None:
    document = _document(cli.benchmark, run_directory, "-b", "1", *QUICK)
    assert json.loads((run_directory / "benchmark.json").read_text(encoding="utf-8")) == document


def test_output_and_markdown_go_where_they_are_told(model_path: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "new" / "out.json", tmp_path / "table.md"
    _document(cli.benchmark, model_path, "-b", "1", "--output", output, "--export-markdown", page, *QUICK)
    assert json.loads(output.read_text(encoding="utf-8"))["kind"] == "benchmark"
    assert page.read_text(encoding="utf-8").startswith("|  | batch |")


def test_torch_is_the_baseline_it_is_compared_with(run_directory: Path) -> None:
    document = _document(cli.benchmark, run_directory, "-b", "1", "--compare-torch", *QUICK, peers=_Peers())
    assert document["baseline"] == "torch eager"
    assert [point["name"] for point in document["points"]] == [str(run_directory), "torch eager"]
    assert document["points"][0]["speed"]["value"] > 0


def test_an_interrupted_benchmark_reports_what_it_has_and_replaces_nothing(run_directory: Path) -> None:
    kept = run_directory / "benchmark.json"
    kept.write_text("the last whole one", encoding="utf-8")
    peers = _Peers(interrupt_at=500)
    result = _run(cli.benchmark, run_directory, "-b", "1,2", "-t", "60", "-e", "cpu", "--compare-torch", peers=peers)
    assert result.exit_code == 130
    assert "PARTIAL" in result.stdout
    assert kept.read_text(encoding="utf-8") == "the last whole one"


def test_comparing_with_torch_needs_a_run(model_path: Path) -> None:
    assert _mistake(cli.benchmark, model_path, "--compare-torch", *QUICK, peers=_Peers()) == (
        f"--compare-torch needs a run directory, where the torch network is; {model_path} is a file"
    )


def test_comparing_with_torch_needs_torch(run_directory: Path) -> None:
    class WithoutTorch:
        def torch_eager(self, run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert _mistake(cli.benchmark, run_directory, "--compare-torch", *QUICK, peers=WithoutTorch()) == (
        "--compare-torch needs the package 'torch': pip install 'enas-toolchain[train]'"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "0"], "a batch of 0 is too small; the smallest is 1"),
        (["-b", "1,x"], "'1,x' is not a number or several with commas between, as 1,8,32"),
        (["-t", "0"], "0.0 is not in the range x>0"),
        (["--intra-op-threads", "0"], "0 is not in the range x>=1"),
        (["-e", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_options_out_of_range_are_told(model_path: Path, arguments: list[str], message: str) -> None:
    result = _run(cli.benchmark, model_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


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
    result = _run(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    assert result.exit_code == 0
    assert "brightness, test: accuracy 75.00% (95 % interval 30.06% – 95.44%, 3 of 4 images)" in result.stdout
    assert "grey         2   50.0%     100.0%  bright 1" in result.stdout


def test_evaluate_writes_the_hashes_of_model_and_data(model_path: Path, store_path: Path) -> None:
    document = _document(cli.evaluate, model_path, "--dataset", store_path, "-e", "cpu")
    assert document["confusion"] == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert len(document["dataset"]["sha256"]) == len(document["sha256"]) == 64


def test_the_data_set_of_the_spec_is_the_default(model_path: Path, tmp_path: Path) -> None:
    assert "unknown data set 'brightness'" in _mistake(cli.evaluate, model_path, "-e", "cpu")
    path = save(tmp_path / "m.onnx", tiny_graph(), metadata(spec=None))
    assert _mistake(cli.evaluate, path, "-e", "cpu") == (
        f"{path} does not say what it was trained on: name a data set with --dataset"
    )


def test_text_is_not_scored_with_a_model_of_images(model_path: Path) -> None:
    message = _mistake(cli.evaluate, model_path, "--dataset", "shakespeare", "-e", "cpu")
    assert message == f"shakespeare is a data set of text, but {model_path} classifies images"


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "night.png", tmp_path / "noon.jpg"]
    for path, brightness in zip(paths, (0, 255), strict=True):
        Image.new("RGB", (30, 20), (brightness,) * 3).save(path)
    return paths


def test_predict_names_the_likeliest_classes(model_path: Path, pictures: list[Path]) -> None:
    result = _run(cli.predict, model_path, *pictures, "--top", "2", "-e", "cpu")
    assert result.exit_code == 0
    assert [line.split()[1::2] for line in result.stdout.splitlines()] == [["dark", "grey"], ["bright", "grey"]]
    assert result.stderr == "runs on CPU\n"


def test_predict_writes_a_document(model_path: Path, pictures: list[Path]) -> None:
    document = _document(cli.predict, model_path, *pictures, "-e", "cpu")
    night, noon = document["predictions"]
    assert night["image"] == str(pictures[0])
    assert [best["class"] for best in night["classes"]] == ["dark", "grey", "bright"]
    assert sum(best["probability"] for best in noon["classes"]) == pytest.approx(1)


def test_more_pictures_than_a_batch_are_all_classified(model_path: Path, pictures: list[Path]) -> None:
    document = _document(cli.predict, model_path, *(pictures * 40), "-e", "cpu")
    assert [row["classes"][0]["class"] for row in document["predictions"]] == ["dark", "bright"] * 40


def test_a_picture_that_is_none_is_told(model_path: Path, pictures: list[Path]) -> None:
    assert _mistake(cli.predict, model_path, pictures[0], model_path, "-e", "cpu") == (
        f"{model_path}: not a PNG or JPEG picture"
    )


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
    assert ended.stderr == f"batch 1: {model_path}\n"
    assert "onnxruntime:Default" not in ended.stdout


def _imported_by(statement: str) -> set[str]:
    listing = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_command_line_loads_nothing_slow() -> None:
    assert not _imported_by("import runtime.cli") & {"torch", "onnx", "onnxruntime", "numpy", "PIL", "h5py", "tqdm"}


def test_no_module_of_the_runtime_loads_torch_or_onnx() -> None:
    folder = Path(cli.__file__).parent
    modules = ", ".join(f"runtime.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("__"))
    assert not _imported_by(f"import {modules}") & {"torch", "onnx", "searcher", "exporter"}
