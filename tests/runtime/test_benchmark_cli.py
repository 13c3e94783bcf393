import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.benchmark_cli import benchmark
from tests.runtime.commands import document_of, mistake, run
from tests.runtime.conftest import CLASSES

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


def test_benchmark_prints_a_row_for_every_batch_size(model_path: Path) -> None:
    result = run(benchmark, model_path, "-b", "1,2", "-b", "4", *QUICK)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(f"{model_path}  ")]
    assert [row[1] for row in rows] == ["1", "2", "4"]


def test_benchmark_keeps_stdout_for_the_document(model_path: Path) -> None:
    document = document_of(benchmark, model_path, "-b", "2", "--intra-op-threads", "1", "--seed", "3", *QUICK)
    assert (document["intra_op_threads"], document["seed"]) == (1, 3)
    assert [point["batch_size"] for point in document["points"]] == [2]
    assert document["baseline"] is None


def test_the_same_file_twice_has_two_names_and_a_ratio(model_path: Path) -> None:
    document = document_of(benchmark, model_path, model_path, "-b", "1", *QUICK)
    assert [point["name"] for point in document["points"]] == [str(model_path), f"{model_path} #2"]
    assert document["points"][0]["speed"] is None
    assert document["points"][1]["speed"]["value"] > 0


def test_a_run_keeps_its_benchmark(run_directory: Path) -> None:
    document = document_of(benchmark, run_directory, "-b", "1", *QUICK)
    assert json.loads((run_directory / "benchmark.json").read_text(encoding="utf-8")) == document


def test_output_and_markdown_go_where_they_are_told(model_path: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "new" / "out.json", tmp_path / "table.md"
    document_of(benchmark, model_path, "-b", "1", "--output", output, "--export-markdown", page, *QUICK)
    assert json.loads(output.read_text(encoding="utf-8"))["kind"] == "benchmark"
    assert page.read_text(encoding="utf-8").startswith("|  | batch |")


def test_torch_is_the_baseline_it_is_compared_with(run_directory: Path) -> None:
    document = document_of(benchmark, run_directory, "-b", "1", "--compare-torch", *QUICK, peers=_Peers())
    assert document["baseline"] == "torch eager"
    assert [point["name"] for point in document["points"]] == [str(run_directory), "torch eager"]
    assert document["points"][0]["speed"]["value"] > 0


def test_an_interrupted_benchmark_reports_what_it_has_and_replaces_nothing(run_directory: Path) -> None:
    kept = run_directory / "benchmark.json"
    kept.write_text("the last whole one", encoding="utf-8")
    peers = _Peers(interrupt_at=500)
    result = run(benchmark, run_directory, "-b", "1,2", "-t", "60", "-e", "cpu", "--compare-torch", peers=peers)
    assert result.exit_code == 130
    assert "PARTIAL" in result.stdout
    assert kept.read_text(encoding="utf-8") == "the last whole one"


def test_comparing_with_torch_needs_a_run(model_path: Path) -> None:
    assert mistake(benchmark, model_path, "--compare-torch", *QUICK, peers=_Peers()) == (
        f"--compare-torch needs a run directory, where the torch network is; {model_path} is a file"
    )


def test_comparing_with_torch_needs_torch(run_directory: Path) -> None:
    class WithoutTorch:
        def torch_eager(self, run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert mistake(benchmark, run_directory, "--compare-torch", *QUICK, peers=WithoutTorch()) == (
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
    result = run(benchmark, model_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
