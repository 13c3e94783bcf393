"""A Triton repository's folder is one that Triton's own descriptions parse, and that our server serves."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from exporter.delivery import triton
from exporter.delivery.triton import text_format, write_triton
from runtime.models.artifact import ArtifactError
from runtime.models.model import Model
from runtime.serving.metrics import Metrics
from runtime.serving.models.repository import Repository
from runtime.serving.settings import Settings
from tests.killed import kill_at_every_change
from tests.runtime import language_models
from tests.runtime.conftest import CLASSES, metadata, save, tiny_graph

PYTHON = Path(__file__).parents[2] / ".venv-triton" / "bin" / "python"
PARSE = """
import sys
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig())
print(config.name, config.max_batch_size, list(config.input[0].dims), config.output[0].label_filename)
warmup = dict(config.model_warmup[0].inputs)
files = [(name, warmup[name].input_data_file) for name in sorted(warmup)]
print(list(config.dynamic_batching.preferred_batch_size), files)
print([(tensor.name, list(tensor.dims), tensor.HasField("reshape")) for tensor in config.input])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model in a repository."""
    monkeypatch.setattr(triton, "preferred_batch_sizes", lambda _: [4, 16])
    save(tmp_path / "tiny" / "model.onnx", tiny_graph(), metadata())
    return write_triton(tmp_path / "tiny", tmp_path / "repository")


@pytest.fixture
def language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny language model in a repository."""
    monkeypatch.setattr(triton, "preferred_batch_sizes", lambda _: [4, 16])
    return write_triton(language_models.save_run(tmp_path / "cats"), tmp_path / "repository")


def test_the_folder_is_as_triton_has_it(folder: Path, tmp_path: Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "config.pbtxt", "labels.txt", "warmup/golden"]
    assert (folder / "1" / "model.onnx").read_bytes() == (tmp_path / "tiny" / "model.onnx").read_bytes()
    assert (folder / "labels.txt").read_text().split() == list(CLASSES)
    assert (folder / "warmup" / "golden").stat().st_size == 6 * 8
    assert sorted(folder.parent.iterdir()) == [folder, folder.with_name("tiny.kserve.yaml")]


@pytest.mark.skipif(not PYTHON.exists(), reason="needs make test-clients")
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "folder",
            [
                "tiny 32 [6, 8, 1] labels.txt",
                "[4, 16] [('images', 'golden')]",
                "[('images', [6, 8, 1], False)]",
            ],
        ),
        (
            "language_model",
            [
                "cats 32 [1] ",
                "[4, 16] [('state', ''), ('tokens', 'golden')]",
                "[('tokens', [1], True), ('state', [3], False)]",
            ],
        ),
    ],
)
def test_tritons_own_description_parses_the_configuration(
    request: pytest.FixtureRequest, model: str, expected: list[str]
) -> None:
    line = [PYTHON, "-c", PARSE, request.getfixturevalue(model) / "config.pbtxt"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


def test_a_language_model_takes_single_steps_with_its_state_in_every_request(language_model: Path) -> None:
    files = sorted(str(path.relative_to(language_model)) for path in language_model.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "config.pbtxt", "vocabulary.json", "warmup/golden"]
    assert json.loads((language_model / "vocabulary.json").read_text()) == list(language_models.WORDS)
    text = (language_model / "config.pbtxt").read_text()
    assert 'input {\n  name: "tokens"\n  data_type: TYPE_INT64\n  dims: 1\n  reshape {\n  }\n}\n' in text
    assert "zero_data: true" in text
    assert "sequence" not in text
    token = np.fromfile(language_model / "warmup" / "golden", dtype=np.int64)
    assert token.tolist() == [language_models.GOLDEN_TOKENS[0][0]]


def test_our_server_serves_a_language_model_from_the_folder(language_model: Path) -> None:
    async def serve() -> None:
        repository = Repository(Settings(language_model.parent, provider="cpu"), Metrics())
        await repository.load_all()
        served = repository.get("cats")
        assert served.version == "1"
        assert served.model.check_golden().passed
        await repository.close()

    asyncio.run(asyncio.wait_for(serve(), timeout=60))


def test_for_gpus_there_is_an_instance_on_each_and_no_batch_size_of_a_cpu(tmp_path: Path) -> None:
    save(tmp_path / "tiny" / "model.onnx", tiny_graph(), metadata())
    folder = write_triton(tmp_path / "tiny", tmp_path / "repository", gpu=True)
    text = (folder / "config.pbtxt").read_text()
    assert "kind: KIND_GPU" in text
    assert "preferred_batch_size" not in text
    assert "nvidia.com/gpu" in folder.with_name("tiny.kserve.yaml").read_text()


def test_our_server_serves_the_folder(folder: Path) -> None:
    async def serve() -> None:
        repository = Repository(Settings(folder.parent, provider="cpu"), Metrics())
        await repository.load_all()
        served = repository.get("tiny")
        assert served.version == "1"
        assert tuple(served.labels) == CLASSES
        images, logits = Model.open(folder / "1" / "model.onnx", provider="cpu").golden_samples()
        np.testing.assert_allclose(served.model.predict(images).logits, logits, atol=1e-4)  # type: ignore[union-attr]
        await repository.close()

    asyncio.run(asyncio.wait_for(serve(), timeout=60))


def test_another_export_takes_the_place_of_the_one_before(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.txt").write_text("of before")
    assert write_triton(tmp_path / "tiny", folder.parent) == folder
    assert (folder / "labels.txt").read_text().split() == list(CLASSES)
    assert sorted(folder.parent.iterdir()) == [folder, folder.with_name("tiny.kserve.yaml")]


def test_what_no_export_has_written_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    with pytest.raises(ArtifactError, match="there is something else; --triton makes a folder"):
        write_triton(run, tmp_path)  # where the run itself is
    assert [path.name for path in run.iterdir()] == ["model.onnx"]
    (folder / "2").mkdir()  # another version, of somebody else
    (folder / "2" / "model.onnx").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tiny").touch()
    (tmp_path / "by hand" / "tiny" / "1").mkdir(parents=True)
    for file in ("1/model.plan", "config.pbtxt"):
        (tmp_path / "by hand" / "tiny" / file).touch()
    for repository in (folder.parent, tmp_path / "other", tmp_path / "by hand"):
        with pytest.raises(ArtifactError, match="something else; --triton"):
            write_triton(run, repository)


def test_an_export_that_fails_leaves_the_one_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> list[int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(triton, "preferred_batch_sizes", fail)
    with pytest.raises(KeyboardInterrupt):
        write_triton(tmp_path / "tiny", folder.parent)
    assert (folder / "config.pbtxt").exists()
    assert sorted(folder.parent.iterdir()) == [folder, folder.with_name("tiny.kserve.yaml")]


def test_a_kill_at_any_moment_leaves_a_whole_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "preferred_batch_sizes", lambda _: [4, 16])
    run, folder = tmp_path / "tiny", tmp_path / "repository" / "tiny"

    def contents() -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    save(run / "model.onnx", tiny_graph(), metadata(classes=["a", "b", "c"]))
    write_triton(run, folder.parent)
    another = contents()
    save(run / "model.onnx", tiny_graph(), metadata())
    write_triton(run, folder.parent)
    own = contents()

    def look() -> None:
        assert not folder.exists() or contents() in (own, another)

    save(run / "model.onnx", tiny_graph(), metadata(classes=["a", "b", "c"]))
    killed = kill_at_every_change(lambda: write_triton(run, folder.parent), folder.parent, look)
    assert killed > len(own)
    assert contents() == another
    assert not list(folder.parent.glob(".*"))


def test_a_run_whose_name_no_model_can_have_is_told(tmp_path: Path) -> None:
    save(tmp_path / "my run" / "model.onnx", tiny_graph(), metadata())
    with pytest.raises(ArtifactError, match="'my run' cannot be the name of a model"):
        write_triton(tmp_path / "my run", tmp_path / "repository")


def test_batches_are_preferred_where_an_image_takes_less_time(tmp_path: Path) -> None:
    sizes = triton.preferred_batch_sizes(save(tmp_path / "m.onnx", tiny_graph(), metadata()).read_bytes())
    assert sizes == sorted(sizes)
    assert set(sizes) <= {2, 4, 8, 16, 32}
    assert sizes  # the tiny model spends nearly all of its time on the call itself


def test_text_is_quoted_and_names_of_enums_are_not() -> None:
    document = {"name": 'a "b"', "kind": "KIND_CPU", "dims": [1, -1], "group": [{"count": 1}]}
    assert text_format(document) == 'name: "a \\"b\\""\nkind: KIND_CPU\ndims: 1\ndims: -1\ngroup {\n  count: 1\n}\n'
