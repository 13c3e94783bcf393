"""From labelled images, or a text, to a verified model, through the command line, on tiny data sets."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

from datasets.catalog import load_images
from searcher.arch.spec import read_spec
from tests.end_to_end.conftest import CLASSES, VOCABULARY, Tiny, enas, here

of_micro = pytest.mark.parametrize("tiny", ["micro"], indirect=True)
of_images = pytest.mark.parametrize("tiny", ["micro", "macro", "stages"], indirect=True)
of_text = pytest.mark.parametrize("tiny", ["recurrent"], indirect=True)


def test_every_stage_leaves_what_the_contract_names(run: Path, tiny: Tiny) -> None:
    stages = ["search", "retrain", *(["retrain-lstm"] if tiny.space == "recurrent" else [])]
    for stage in stages:
        for name in ("config.toml", "metrics.jsonl", "checkpoint.pt", "summary.json"):
            assert (run / stage / name).is_file()
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    spec = read_spec(run / "spec.json")
    assert spec.space == tiny.space
    if tiny.space == "recurrent":
        assert spec.task.vocabulary_size == len(VOCABULARY)
    else:
        assert spec.task.classes == CLASSES
    assert spec.provenance["policy"] == "lstm"
    assert read_spec(run / "retrain" / "spec.json") == spec
    assert not list(run.rglob("*.tmp"))


def test_metrics_compare_the_controller_with_the_random_policy(run: Path, tiny: Tiny) -> None:
    records = [json.loads(line) for line in (run / "search" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    best = 80 if tiny.space == "recurrent" else 1
    for record in records:
        assert 0 <= record["reward"] <= best
        assert 0 <= record["random_reward"] <= best
        assert record["entropy"] > 0
        assert record["step_ms"] > 0
    assert list((run / "search" / "tensorboard").iterdir())


@pytest.mark.parametrize("tiny", ["micro", "macro"], indirect=True)
@pytest.mark.gpu
def test_a_run_replays_cuda_graphs_from_search_to_model(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "run"
    enas(*tiny.search(path), "--device", "cuda", "--cuda-graphs")
    enas(*tiny.retrain(path), "--device", "cuda", "--cuda-graphs")
    here("export", path)
    assert json.loads((path / "verification.json").read_text())["passed"] is True


@of_text
@pytest.mark.gpu
def test_a_text_is_retrained_with_cuda_graphs(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "spec.json").write_bytes((run / "spec.json").read_bytes())
    enas(*tiny.retrain(path), "--device", "cuda", "--cuda-graphs")
    here("export", path)
    assert json.loads((path / "verification.json").read_text())["passed"] is True


@of_micro
def test_cuda_graphs_without_cuda_are_refused_before_there_is_a_run(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    path, spec = tmp_path / "run", run / "spec.json"
    for command in (tiny.search(path), ["retrain", spec, "--run", path]):
        done = here(*command, "--device", "cpu", "--cuda-graphs", check=False)
        assert str(done.exception) == "CUDA graphs need a CUDA device, but this is to run on the cpu"
    assert not path.exists()


@of_images
def test_the_model_is_as_the_contract_says(run: Path) -> None:
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
    trained_on = tomllib.loads((run / "retrain" / "config.toml").read_text())["dataset_sha256"]
    assert parsed["enas.producer"]["dataset_sha256"] == trained_on
    assert properties["names"] == "{0: 'bar', 1: 'dot', 2: 'blank'}"
    assert_tells_nothing_of_its_making(run / "model.onnx")
    assert [p.name for p in run.glob("model*")] == ["model.onnx"]


def assert_tells_nothing_of_its_making(path: Path) -> None:
    text = path.read_bytes()
    for leak in (b"stack_trace", b"/site-packages/", str(Path.cwd()).encode(), b"pkg.torch"):
        assert leak not in text


@of_text
def test_both_files_of_a_language_model_are_as_the_contract_says(run: Path) -> None:
    expected = {
        "model.onnx": {
            "tokens": ["batch"],
            "state": ["batch", 16],
            "logits": ["batch", 10],
            "next_state": ["batch", 16],
        },
        "model-sequence.onnx": {
            **{"tokens": ["batch", "time"], "targets": ["batch", "time"], "state": ["batch", 16]},
            **{"log_probs": ["batch", "time"], "next_state": ["batch", 16]},
        },
    }
    for name, shapes in expected.items():
        model = onnx.load(run / name)
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version <= 10
        assert [entry.version for entry in model.opset_import] == [18]
        found = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert found == shapes
        parsed = {e.key: json.loads(e.value) for e in model.metadata_props if e.key.startswith("enas.")}
        assert parsed["enas.spec"] == json.loads((run / "retrain" / "spec.json").read_text())
        assert parsed["enas.tokenizer"]["vocabulary"] == list(VOCABULARY)
        assert (parsed["enas.accuracy"]["metric"], parsed["enas.accuracy"]["count"]) == ("perplexity", 320)
        assert parsed["enas.drawing"].startswith("<svg")
        assert_tells_nothing_of_its_making(run / name)
    assert sorted(p.name for p in run.glob("model*")) == sorted(expected)


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with numpy and onnxruntime, and what these need, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    wanted, found = ["numpy", "onnxruntime-gpu"], set()
    if not any(d.name == "onnxruntime-gpu" for d in importlib.metadata.distributions()):
        wanted[1] = "onnxruntime"
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        distribution = importlib.metadata.distribution(name)
        wanted += [re.split(r"[ ;<>=!~\[]", line)[0] for line in distribution.requires or [] if "extra ==" not in line]
        for top in {Path(file).parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))  # type: ignore[arg-type]
    return folder


def run_bare(script: str, packages: Path, folder: Path) -> str:
    """Run a script where only `packages` can be imported."""
    script = f"import sys; sys.path.append({str(packages)!r})\n{script}"
    command = [sys.executable, "-I", "-S", "-c", script]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@of_micro
def test_the_model_runs_where_nothing_of_ours_is_installed(
    run: Path, store_path: Path, tmp_path: Path, bare_packages: Path
) -> None:
    store = load_images(str(store_path))
    np.save(tmp_path / "images.npy", store.images("test"))
    script = (
        "import importlib.util, numpy, onnxruntime\n"
        "for name in ('torch', 'onnx', 'searcher', 'runtime', 'datasets', 'h5py'):\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        f"session = onnxruntime.InferenceSession({str(run / 'model.onnx')!r}, providers=['CPUExecutionProvider'])\n"
        "logits, probabilities = session.run(None, {'images': numpy.load('images.npy')})\n"
        "numpy.save('answers.npy', probabilities)\n"
    )
    run_bare(script, bare_packages, tmp_path)
    answers = np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    accuracy = (answers.argmax(axis=1) == store.labels("test")).mean()
    summary = json.loads((run / "retrain" / "summary.json").read_text())
    assert accuracy == pytest.approx(summary["test_accuracy"])


@of_micro
def test_the_readmes_five_lines_run_with_onnxruntime_and_numpy_alone(
    run: Path, tmp_path: Path, bare_packages: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[0]
    assert len([line for line in lines.splitlines() if line]) == 5
    assert "(1, 28, 28, 1)" in lines
    (tmp_path / "model.onnx").symlink_to(run / "model.onnx")
    answer = run_bare(lines.replace("(1, 28, 28, 1)", "(1, 8, 8, 1)"), bare_packages, tmp_path)
    assert answer.strip() in ("[0]", "[1]", "[2]")


def test_finished_stages_are_left_alone_when_resumed(run: Path, tiny: Tiny) -> None:
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    here(*tiny.search(run), "--resume")
    here(*tiny.retrain(run), "--resume")
    here("export", run, "--resume")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == files


@of_micro
def test_verify_passes_again_and_fails_on_other_weights(run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    assert "passed" in here("verify", run).stdout
    model = onnx.load(run / "model.onnx")
    weights = next(i for i in model.graph.initializer if len(i.dims) == 4)
    array = onnx.numpy_helper.to_array(weights).copy()
    array[0] += 0.05
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    other = shutil.copytree(run, tmp_path / "other")
    onnx.save(model, other / "model.onnx")
    done = here("verify", other, check=False)
    assert done.exit_code == 1
    assert "FAILED" in done.stdout
    assert json.loads((other / "verification.json").read_text())["passed"] is False


@of_micro
def test_an_export_that_does_not_match_leaves_no_model(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    (other / "model.onnx").unlink()
    done = here("export", other, "--atol", "0", "--rtol", "1e-12", check=False)
    assert done.exit_code == 1
    assert "No model was written" in done.stderr
    assert not (other / "model.onnx").exists()
    assert json.loads((other / "verification-failed.json").read_text())["passed"] is False
    assert not list(other.glob(".*.tmp"))


@of_micro
def test_the_runtime_scores_and_times_the_model(run: Path, store_path: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    scored = json.loads(here("evaluate", run, "--dataset", store_path, "--json").stdout)
    summary = json.loads((run / "retrain" / "summary.json").read_text())
    assert scored["accuracy"]["value"] == pytest.approx(summary["test_accuracy"])
    quick = ("--intra-op-threads", "1", "--duration", "0.2", "--warmup", "0.1", "--sittings", "2")
    timed = enas("benchmark", run, "--compare-torch", "--batch-size", "1,4", *quick, "--json")
    assert json.loads(timed.stdout)
    assert (run / "benchmark.json").is_file()


@pytest.mark.parametrize("tiny", ["macro", "recurrent"], indirect=True)
def test_the_runtime_scores_the_model_as_retraining_did(run: Path, tiny: Tiny) -> None:
    scored = json.loads(here("evaluate", run, "--json").stdout)
    summary = json.loads((run / "retrain" / "summary.json").read_text())
    if tiny.space == "recurrent":
        assert scored["perplexity"] == pytest.approx(summary["test_perplexity"], rel=1e-5)
    else:
        assert scored["accuracy"]["value"] == pytest.approx(summary["test_accuracy"])


@of_text
def test_a_language_model_goes_on_with_a_prompt(run: Path) -> None:
    written = json.loads(here("generate", run, "--prompt", "a b c", "--length", "20", "--json").stdout)
    assert written["prompt_tokens"] == [VOCABULARY.index(letter) for letter in "abc"]
    assert len(written["tokens"]) == 20
    assert written["text"].startswith("a b c")


@of_text
def test_a_language_model_goes_into_a_triton_repository_and_onto_no_page(run: Path, tmp_path: Path) -> None:
    here("export", run, "--resume", "--triton", tmp_path / "repository")
    folder = tmp_path / "repository" / run.name
    assert (folder / "1" / "model.onnx").read_bytes() == (run / "model.onnx").read_bytes()
    assert json.loads((folder / "vocabulary.json").read_text()) == list(VOCABULARY)
    assert "reshape {" in (folder / "config.pbtxt").read_text()
    for options in (["--web", tmp_path / "page"], ["--align", "auto"]):
        refused = enas("export", run, "--resume", *options, check=False)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "--align, --resize-inside and --web are for image classifiers" in refused.stderr
    assert not (tmp_path / "page").exists()


@of_micro
def test_a_page_without_its_runtime_is_told_in_a_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    options = ["--web", tmp_path / "page", "--web-runtime", tmp_path / "package"]
    refused = enas("export", run, "--resume", *options, check=False)
    assert refused.returncode == 2
    assert "no dist/ort.wasm.bundle.min.mjs; expected the package onnxruntime-web@" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    assert "up to date" not in refused.stderr  # it is told before the export
    assert enas("export", run, "--web-runtime", tmp_path / "package", check=False).returncode == 2
    assert not (tmp_path / "page").exists()


def test_the_report_is_written(run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    here("report", run)
    assert "<svg" in (run / "report.html").read_text()


@of_micro
def test_random_search_runs_behind_the_same_command(tmp_path: Path, tiny: Tiny) -> None:
    here(*tiny.search(tmp_path / "random"), "--policy", "random")
    spec = read_spec(tmp_path / "random" / "spec.json")
    assert spec.provenance["policy"] == "random"
