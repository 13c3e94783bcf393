"""From labelled images to a verified model, through the command line, on a tiny data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from datasets.catalog import load
from datasets.store import ImageStore
from searcher.arch.spec import read_spec
from tests.end_to_end.conftest import CLASSES, enas


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, search_config: Path, retrain_config: Path) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    enas("search", "--config", search_config, "--run", path)
    enas("retrain", path, "--config", retrain_config)
    enas("export", path)
    return path


def test_every_stage_leaves_what_the_contract_names(run: Path) -> None:
    for name in ("config.toml", "metrics.jsonl", "checkpoint.pt", "summary.json"):
        assert (run / "search" / name).is_file()
        assert (run / "retrain" / name).is_file()
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    spec = read_spec(run / "spec.json")
    assert spec.task.classes == CLASSES
    assert spec.provenance["policy"] == "lstm"
    assert read_spec(run / "retrain" / "spec.json") == spec
    assert not list(run.rglob("*.tmp"))


def test_metrics_compare_the_controller_with_the_random_policy(run: Path) -> None:
    records = [json.loads(line) for line in (run / "search" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    for record in records:
        assert 0 <= record["reward"] <= 1
        assert 0 <= record["random_reward"] <= 1
        assert record["entropy"] > 0
        assert record["step_ms"] > 0
    assert list((run / "search" / "tensorboard").iterdir())


def test_the_model_is_as_the_contract_says(run: Path, store_path: Path) -> None:
    model = onnx.load(run / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [entry.version for entry in model.opset_import] == [18]
    (images,) = model.graph.input
    dims = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, images.type.tensor_type.elem_type, dims) == (
        "images",
        onnx.TensorProto.UINT8,
        ["batch", 8, 8, 1],
    )
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    parsed = {key: json.loads(value) for key, value in properties.items() if key.startswith("enas.")}
    assert parsed["enas.classes"] == list(CLASSES)
    assert parsed["enas.spec"] == json.loads((run / "retrain" / "spec.json").read_text())
    assert parsed["enas.accuracy"]["split"] == "test"
    assert parsed["enas.accuracy"]["count"] == 41
    assert parsed["enas.drawing"].startswith("<svg")
    assert parsed["enas.precision"] == "fp32"
    assert properties["names"] == "{0: 'bar', 1: 'dot', 2: 'blank'}"
    text = (run / "model.onnx").read_bytes()
    for leak in (b"stack_trace", b"/site-packages/", str(Path.cwd()).encode(), b"pkg.torch"):
        assert leak not in text
    assert [p.name for p in run.glob("model.onnx*")] == ["model.onnx"]


def test_the_model_runs_where_nothing_of_ours_is_installed(run: Path, store_path: Path, tmp_path: Path) -> None:
    store = load(str(store_path))
    assert isinstance(store, ImageStore)
    np.save(tmp_path / "images.npy", store.images("test"))
    script = (
        "import sys, numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(run / 'model.onnx')!r}, providers=['CPUExecutionProvider'])\n"
        "logits, probabilities = session.run(None, {'images': numpy.load('images.npy')})\n"
        "assert not {'torch', 'onnx', 'searcher', 'runtime', 'datasets'} & set(sys.modules)\n"
        "numpy.save('answers.npy', probabilities)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, check=True)
    answers = np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    accuracy = (answers.argmax(axis=1) == store.labels("test")).mean()
    summary = json.loads((run / "retrain" / "summary.json").read_text())
    assert accuracy == pytest.approx(summary["test_accuracy"])


def test_a_second_export_gives_the_same_bytes(run: Path) -> None:
    before = (run / "model.onnx").read_bytes()
    enas("export", run)
    assert (run / "model.onnx").read_bytes() == before


def test_finished_stages_are_left_alone_when_resumed(run: Path, search_config: Path, retrain_config: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    enas("search", "--config", search_config, "--run", run, "--resume")
    enas("retrain", run, "--config", retrain_config, "--resume")
    enas("export", run, "--resume")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == files


def test_verify_passes_again_and_fails_on_other_weights(run: Path, tmp_path: Path) -> None:
    assert "passed" in enas("verify", run).stdout
    model = onnx.load(run / "model.onnx")
    weights = next(i for i in model.graph.initializer if len(i.dims) == 4)
    array = onnx.numpy_helper.to_array(weights).copy()
    array[0] += 0.05
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", run, other], check=True)
    onnx.save(model, other / "model.onnx")
    done = enas("verify", other, check=False)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert json.loads((other / "verification.json").read_text())["passed"] is False


def test_an_export_that_does_not_match_leaves_no_model(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", run, other], check=True)
    (other / "model.onnx").unlink()
    done = enas("export", other, "--atol", "0", "--rtol", "1e-12", check=False)
    assert done.returncode == 1
    assert "No model was written" in done.stderr
    assert not (other / "model.onnx").exists()
    assert json.loads((other / "verification-failed.json").read_text())["passed"] is False
    assert not list(other.glob(".*.tmp"))


def test_the_runtime_scores_and_times_the_model(run: Path, store_path: Path) -> None:
    scored = json.loads(enas("evaluate", run, "--dataset", store_path, "--json").stdout)
    summary = json.loads((run / "retrain" / "summary.json").read_text())
    assert scored["accuracy"] == pytest.approx(summary["test_accuracy"])
    timed = enas("benchmark", run, "--compare-torch", "--batch-size", "1,4", "--duration", "0.2", "--json")
    assert json.loads(timed.stdout)
    assert (run / "benchmark.json").is_file()


def test_equal_seeds_give_equal_specs_and_models(
    run: Path, tmp_path: Path, search_config: Path, retrain_config: Path
) -> None:
    again = tmp_path / "again"
    enas("search", "--config", search_config, "--run", again)
    assert (again / "spec.json").read_bytes() == (run / "spec.json").read_bytes()
    enas("retrain", again, "--config", retrain_config)
    enas("export", again)
    assert (again / "model.onnx").read_bytes() == (run / "model.onnx").read_bytes()


def test_the_report_is_written(run: Path) -> None:
    enas("report", run)
    assert "<svg" in (run / "report.html").read_text()


def test_random_search_runs_behind_the_same_command(tmp_path: Path, search_config: Path) -> None:
    enas("search", "--config", search_config, "--run", tmp_path / "random", "--policy", "random")
    spec = read_spec(tmp_path / "random" / "spec.json")
    assert spec.provenance["policy"] == "random"
