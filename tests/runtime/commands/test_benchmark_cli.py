import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.allowance import usable_cores
from runtime.commands.benchmark import benchmark
from tests.runtime.benchmarking.test_targets import foreign_model
from tests.runtime.command_runs import document_of, mistake, run
from tests.runtime.conftest import CLASSES, SHAPE, metadata, save, tiny_graph
from tests.runtime.language_models import save_run
from tests.runtime.oip_server import Double, Reply, serving

ROOT = Path(__file__).parents[3]
# Enough to see every path, too little to mean anything.
QUICK_AT_SERVER = ["-t", "0.02", "--warmup", "0.02", "-r", "1", "--sittings", "2"]
QUICK = ["--provider", "cpu", *QUICK_AT_SERVER]


class _Peers:
    """A stand-in for torch: gives logits of the right shape, or is interrupted at a given call."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.calls = 0
        self.interrupt_at = interrupt_at

    def torch_network(
        self, run: Path, *, threads: int, device: str, compiled: bool
    ) -> Callable[[np.ndarray], np.ndarray]:
        assert device == "cpu"

        def predict(images: np.ndarray) -> np.ndarray:
            assert images.shape[1:] == SHAPE
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
    assert document["seed"] == 3
    assert [(point["batch_size"], point["intra_op_threads"]) for point in document["points"]] == [(2, 1)]
    assert document["baseline"] is None


def test_the_same_file_twice_has_two_names_and_a_ratio(model_path: Path) -> None:
    document = document_of(benchmark, model_path, model_path, "-b", "1", *QUICK)
    assert [point["name"] for point in document["points"]] == [str(model_path), f"{model_path} #2"]
    assert document["points"][0]["speed"] is None
    assert document["points"][1]["speed"]["value"] > 0


def test_a_run_keeps_its_benchmark(run_directory: Path) -> None:
    document = document_of(benchmark, run_directory, "-b", "1,2", *QUICK)
    assert json.loads((run_directory / "benchmark.json").read_text(encoding="utf-8")) == document
    assert (run_directory / "benchmark-batches.svg").read_text(encoding="utf-8").startswith("<svg")


def test_output_and_markdown_go_where_they_are_told(model_path: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "new" / "out.json", tmp_path / "table.md"
    document_of(benchmark, model_path, "-b", "1", "--output", output, "--export-markdown", page, *QUICK)
    assert json.loads(output.read_text(encoding="utf-8"))["kind"] == "benchmark"
    assert page.read_text(encoding="utf-8").startswith("**single-stream**\n\n|  | batch |")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_stdout_loses_no_file(model_path: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "out.json", tmp_path / "table.md"
    line = [sys.executable, str(ROOT / "enas.py"), "benchmark", str(model_path), "-b", "1", *QUICK]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*line, "--output", str(output), "--export-markdown", str(page)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: [Errno 28] No space left on device")
    assert json.loads(output.read_text(encoding="utf-8"))["kind"] == "benchmark"
    assert page.read_text(encoding="utf-8").startswith("**single-stream**")


def test_a_file_that_cannot_be_written_loses_no_table(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(benchmark, model_path, "-b", "1", "--output", tmp_path / "file" / "out.json", *QUICK)
    assert isinstance(result.exception, OSError)
    assert "single-stream\n" in result.stdout


def test_torch_is_the_baseline_it_is_compared_with(run_directory: Path) -> None:
    document = document_of(benchmark, run_directory, "-b", "1", "--compare-torch", *QUICK, peers=_Peers())
    assert document["baseline"] == "torch eager"
    assert [point["name"] for point in document["points"]] == [str(run_directory), "torch eager"]
    assert document["points"][0]["speed"]["value"] > 0


def test_torch_gets_the_inputs_of_the_run_that_its_network_is_of(tmp_path: Path, run_directory: Path) -> None:
    other = foreign_model(tmp_path / "other.onnx")
    document = document_of(
        benchmark, other, run_directory, "--shape", "width=7", "-b", "1", "--compare-torch", *QUICK, peers=_Peers()
    )
    assert [(point["name"], point["failure"]) for point in document["points"]] == [
        (str(other), None),
        (str(run_directory), None),
        ("torch eager", None),
    ]


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
        def torch_network(self, run: Path, **settings: Any) -> Callable[[np.ndarray], np.ndarray]:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert mistake(benchmark, run_directory, "--compare-torch", *QUICK, peers=WithoutTorch()) == (
        "--compare-torch needs the package 'torch': pip install 'enas-toolchain[train]'"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "0"], "0 is too small; the smallest is 1"),
        (["-b", "1,x"], "'1,x' is not a number, several as 1,8,32, or a range as 1:8:2"),
        (["-b", "8:1"], "'8:1' is not a number, several as 1,8,32, or a range as 1:8:2"),
        (["-t", "0"], "0.0 is not in the range x>0"),
        (["--intra-op-threads", "0"], "0 is too small; the smallest is 1"),
        (["--request-rate", "0"], "0 is too small; it must be more than 0"),
        (["--request-rate", "nan"], "'nan' is not a number, several as 1,8,32, or a range as 1:8:2"),
        (["--request-rate", "1:inf"], "'1:inf' is not a number, several as 1,8,32, or a range as 1:8:2"),
        (["--request-rate", "1e9"], "1,000,000,000 is too large; the largest is 1,000,000"),
        (["--request-rate", "1:2:1e-6"], "'1:2:1e-6' is 1,000,001 numbers; at most 10,000 can be tried"),
        (["-b", "1:100000000000"], "'1:100000000000' is 100,000,000,000 numbers; at most 10,000 can be tried"),
        (["--concurrency", "1000000"], "1,000,000 is too large; the largest is 10,000"),
        (["--streams", "1000000"], "1000000 is not in the range 1<=x<=10000"),
        (["--intra-op-threads", "3000000000"], "3,000,000,000 is too large; the largest is 1,024"),
        (["-e", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--shape", "time=0"], "'time=0' is not a dimension and its size, 1 or more, as height=224"),
        (["--latency-target", "5 parsecs"], "'5 parsecs' is not a time, as 5ms, 800us or 0.2s"),
        (["--scenario", "best-case"], "'best-case' is not one of 'single-stream', 'multi-stream', 'offline', 'server'"),
    ],
)
def test_options_out_of_range_are_told(model_path: Path, arguments: list[str], message: str) -> None:
    result = run(benchmark, model_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "2"], "--concurrency belongs to the scenarios offline and server"),
        (["--request-rate", "9"], "--request-rate belongs to --scenario server"),
        (
            ["--scenario", "server"],
            "--scenario server takes --request-rate, or a --latency-target to find the rate for",
        ),
        (
            ["--scenario", "offline", "--latency-target", "5ms"],
            "--latency-target belongs to the scenarios single-stream and server",
        ),
        (["--no-data-transfers"], "--no-data-transfers takes --io-binding: without it every call copies"),
        (["--cuda-graph"], "a CUDA graph takes CUDA, but the session runs on the CPU"),
        (["--shape", "depth=3"], "--shape depth: no input has such a dimension; free are batch"),
        (
            ["--url", "http://localhost:1", "--compare-torch"],
            "--compare-torch is of models in this process, and does not go together with --url",
        ),
    ],
)
def test_options_that_do_not_go_together_are_told(model_path: Path, arguments: list[str], message: str) -> None:
    assert mistake(benchmark, model_path, *arguments, "-e", "cpu") == message


# --- scenarios, sweeps, targets ---------------------------------------------------------------------------------------


def test_ranges_and_lists_are_swept(model_path: Path) -> None:
    document = document_of(benchmark, model_path, "-b", "1:5:2", "--intra-op-threads", "1,2", *QUICK)
    found = [(point["intra_op_threads"], point["batch_size"]) for point in document["points"]]
    assert found == [(threads, size) for threads in (1, 2) for size in (1, 3, 5)]


def test_several_scenarios_of_one_model_are_measured(model_path: Path) -> None:
    arguments = ["--scenario", "offline", "--scenario", "server", "--scenario", "multi-stream", "--streams", "2"]
    document = document_of(
        benchmark, model_path, "-b", "1", *arguments, "--concurrency", "1,2", "--request-rate", "50,100", *QUICK
    )
    found = [(p["scenario"], p["concurrency"], p["rate_per_s"], p["streams"]) for p in document["points"]]
    assert found == [
        ("offline", 1, None, 8),
        ("offline", 2, None, 8),
        *(("server", count, rate, 8) for rate in (50.0, 100.0) for count in (1, 2)),
        ("multi-stream", 1, None, 2),
    ]


def test_the_largest_batch_and_rate_that_meet_a_latency_are_told(model_path: Path) -> None:
    result = run(
        benchmark,
        model_path,
        *["--scenario", "single-stream", "--scenario", "server", "--latency-target", "20ms", "--percentile", "50"],
        *["-b", "1,4", *QUICK],
    )
    assert result.exit_code == 0, result.exception
    assert (
        f"{model_path}, {usable_cores()} intra-op threads: batches of up to 4 for a p50 of 20 ms or less"
        in result.stdout
    )
    for size in (1, 4):
        assert f"{usable_cores()} intra-op threads, batch {size}, 1 in flight: up to " in result.stdout
    assert result.stdout.count(" calls/s for a p50 of 20 ms or less") == 2


def test_of_rates_that_are_told_the_largest_that_meets_a_latency_is_named(model_path: Path) -> None:
    arguments = ["--scenario", "server", "--request-rate", "20,200", "--concurrency", "1,2", "--latency-target", "30ms"]
    document = document_of(benchmark, model_path, "-b", "1", *arguments, "--percentile", "50", *QUICK, "-t", "0.1")
    assert [(answer["concurrency"], answer["batch_size"], answer["most"]) for answer in document["answers"]] == [
        (1, 1, 200),
        (2, 1, 200),
    ]


def test_where_threads_are_swept_it_is_announced_once(model_path: Path) -> None:
    result = run(benchmark, model_path, "-b", "1", "--intra-op-threads", "1,2", *QUICK)
    assert result.stderr.count("runs on") == 1


def test_a_latency_that_nothing_meets_is_told(model_path: Path) -> None:
    result = run(benchmark, model_path, "--latency-target", "1us", "--percentile", "50", *QUICK)
    assert result.exit_code == 0
    assert "no batch that was tried for a p50 of 0.001 ms or less" in result.stdout
    # Batches are doubled only while they meet it.
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith(f"{model_path}  ")] == ["1"]


@pytest.mark.parametrize(
    ("scenario", "of"),
    [
        ("", "batch"),
        ("--scenario server --concurrency 2", "rate"),
        ("--scenario server --request-rate 40", "rate"),
    ],
)
def test_too_few_samples_for_a_latency_are_told_and_not_taken_for_a_miss(scenario: str, of: str) -> None:
    class Slow(Double):
        def infer(self, body: bytes, header_length: str | None) -> Reply:
            time.sleep(0.005)
            return super().infer(body, header_length)

    with serving(Slow) as url:
        line = ["double", "--url", url, "-b", "1", *scenario.split(), *QUICK_AT_SERVER]
        result = run(benchmark, *line, "--latency-target", "10s")
        missed = run(benchmark, *line, "--latency-target", "1ms")
    assert f": too few samples to tell which {of} has a p99 of 10000 ms or less (p99 takes 662)" in result.stdout
    # However few they are.
    assert f": no {of} that was tried for a p99 of 1 ms or less" in missed.stdout


def test_a_model_of_one_batch_size_is_measured_at_that(tmp_path: Path) -> None:
    graph = tiny_graph()
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    path = save(tmp_path / "fixed.onnx", graph, metadata())
    document = document_of(benchmark, path, *QUICK)
    assert [point["batch_size"] for point in document["points"]] == [4]
    result = run(benchmark, path, "-b", "1,4", *QUICK)
    assert result.exit_code == 1
    assert f"FAILED: {path} at batch 1: takes batches of 4 only, not of 1." in result.stdout
    assert mistake(benchmark, path, "-b", "2", *QUICK) == f"{path} at batch 2: takes batches of 4 only, not of 2"


def test_a_batch_that_memory_does_not_hold_is_a_failure_of_its_point(model_path: Path) -> None:
    result = run(benchmark, model_path, "-b", f"1,{10**15}", *QUICK)
    assert result.exit_code == 1
    assert f"FAILED: {model_path} at batch {10**15}: inputs of this size cannot be made: " in result.stdout


def test_a_model_of_somebody_else_is_measured(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "foreign.onnx")
    mistaken = mistake(benchmark, path, *QUICK)  # told once, of all batch sizes
    reason = "a free dimension needs a size, --shape NAME=SIZE: width (of x float32 [n, width])"
    assert mistaken == f"{path} at batch 1, 8, 32: {reason}"
    document = document_of(benchmark, path, "--shape", "width=7", "-b", "1", *QUICK)
    assert document["unit"] == "items"
    assert document["points"][0]["count"] > 0


def test_language_models_are_measured(tmp_path: Path) -> None:
    run_directory = save_run(tmp_path / "run")
    document = document_of(benchmark, run_directory, "-b", "1,2", *QUICK)
    assert document["unit"] == "tokens"
    assert [point["failure"] for point in document["points"]] == [None, None]
    sequences = run_directory / "model-sequence.onnx"
    assert "--shape NAME=SIZE: time" in mistake(benchmark, sequences, *QUICK)
    document = document_of(benchmark, sequences, "-b", "2", "--shape", "time=5", *QUICK)
    assert [point["failure"] for point in document["points"]] == [None]


def test_a_model_on_a_server_is_measured_by_the_same_scenarios() -> None:
    with serving() as url:
        document = document_of(benchmark, "double", "--url", url, "-b", "2", "--scenario", "offline", *QUICK_AT_SERVER)
    (point,) = document["points"]
    assert (point["intra_op_threads"], point["failure"]) == (None, None)
    assert point["count"] > 0
    assert document["models"][0]["file"] == f"{url}/v2/models/double"


@pytest.mark.parametrize(("largest", "has_new_shape"), [(1, False), (2, True), (32, True)])
def test_a_server_is_measured_at_the_largest_batch_that_it_takes(largest: int, has_new_shape: bool) -> None:
    class Limited(Double):
        def infer(self, body: bytes, header_length: str | None) -> Reply:
            status, headers, answer = super().infer(body, header_length)
            (output,) = json.loads(answer[: int(headers["Inference-Header-Content-Length"])])["outputs"]
            # A row is four floats.
            if output["parameters"]["binary_data_size"] > largest * 4 * 4:
                return 400, {}, b'{"error": "too many rows"}'
            return status, headers, answer

    with serving(Limited) as url:
        document = document_of(benchmark, "double", "--url", url, "-b", str(largest), *QUICK_AT_SERVER)
    (point,) = document["points"]
    assert point["failure"] is None
    assert len(point["sittings"]) == 2
    assert (point["new_shape_ms"] is not None) == has_new_shape


def test_reference_networks_are_measured_beside_the_model(model_path: Path) -> None:
    class References:
        def references(self, *, image_shape: tuple[int, int, int], num_classes: int) -> dict[str, bytes]:
            assert (image_shape, num_classes) == (SHAPE, len(CLASSES))
            return {"Known-like": model_path.read_bytes()}

    result = run(benchmark, model_path, "-b", "1", "--compare-reference", *QUICK, peers=References())
    assert result.exit_code == 0, result.exception
    assert "Known-like: 1 kB" in result.stdout
    assert "untrained" in result.stdout
    assert f"speed vs {model_path}" in result.stdout


def test_the_compiled_network_is_measured_beside_the_eager_one(run_directory: Path) -> None:
    document = document_of(
        benchmark, run_directory, "-b", "1", "--compare-torch", "--compare-compiled", *QUICK, peers=_Peers()
    )
    assert [point["name"] for point in document["points"]] == [str(run_directory), "torch eager", "torch.compile"]
    assert document["baseline"] == "torch eager"


def test_where_it_runs_is_said_once_and_in_one_line(model_path: Path) -> None:
    result = run(benchmark, model_path, model_path, "-b", "1", *QUICK)
    assert result.stderr.splitlines()[0] == "runs on CPU"
    assert result.stderr.count("runs on") == 1


def test_a_header_has_a_name_and_a_value_and_a_server(model_path: Path) -> None:
    assert mistake(benchmark, "m", "--url", "http://localhost:1", "--header", "x") == (
        "--header is 'x', but must be NAME:VALUE"
    )
    assert mistake(benchmark, model_path, "--header", "a:b") == (
        "--token-file and --header are for a server: they go with --url"
    )
