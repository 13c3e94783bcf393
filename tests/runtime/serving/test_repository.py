"""How models are loaded, replaced and unloaded, in this process."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest

from runtime.models.artifact import ArtifactError, read_model
from runtime.models.onnx_file import OnnxFile
from runtime.serving.batching import pace
from runtime.serving.errors import RequestError, UnavailableError, UnknownError
from runtime.serving.metrics import Metrics, ModelMetrics
from runtime.serving.models.repository import Repository
from runtime.serving.models.served import ServedModel
from runtime.serving.settings import Settings
from tests.runtime.conftest import SHAPE, metadata, save, tiny_graph
from tests.runtime.serving.waiting import told

FEED = {"images": np.zeros((1, *SHAPE), np.uint8)}


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, timeout=60))


def repository(path: Path, *, unloaded: tuple[str, ...] = ()) -> Repository:
    return Repository(Settings(path, provider="cpu"), Metrics(), unloaded=unloaded)


async def infer(served: ServedModel, feed: Mapping[str, np.ndarray] = FEED) -> None:
    await told(partial(served.begin, feed, batch_size=1, timeout_s=None))


def wrong(path: Path) -> Path:
    """A whole model that does not give the logits that it carries."""
    golden = metadata()["golden"]
    golden["logits"] = np.add(golden["logits"], 1).tolist()
    return save(path, tiny_graph(), metadata(golden=golden))


def good(path: Path, **changes: Any) -> Path:
    return save(path, tiny_graph(), metadata(**changes))


# --- what is served ---------------------------------------------------------------------------------------------------


def test_the_highest_version_answers_unless_one_is_named(tmp_path: Path) -> None:
    for version in ("2", "10"):
        good(tmp_path / "m" / version / "model.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        with pytest.raises(UnknownError):
            models.get("m")
        await models.load_all()
        assert models.is_ready
        assert (models.get("m").version, models.get("m", "2").version) == ("10", "2")
        with pytest.raises(UnknownError, match=r"^Request for unknown model: 'm' version 3 is not found$"):
            models.get("m", "3")
        await models.close()

    run(scenario())


def test_a_model_that_fails_its_own_samples_is_not_served(tmp_path: Path) -> None:
    wrong(tmp_path / "bad" / "1" / "model.onnx")
    good(tmp_path / "good" / "1" / "model.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        assert models.names == ["good"]
        assert not models.is_ready
        with pytest.raises(UnavailableError, match=r"^model 'bad' is not ready$"):
            models.get("bad")
        row = next(row for row in models.index() if row["name"] == "bad")
        assert row["state"] == "UNAVAILABLE"
        assert "it does not give the outputs that it carries: they differ by up to 1" in row["reason"]

    run(scenario())


def test_where_nothing_can_be_served_all_reasons_are_told(tmp_path: Path) -> None:
    wrong(tmp_path / "bad.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")

    async def scenario() -> None:
        with pytest.raises(ArtifactError, match=r"bad\.onnx: it does not give .*; .*broken\.onnx: not an ONNX file"):
            await repository(tmp_path).load_all()

    run(scenario())


def test_a_reload_replaces_a_model_without_a_gap(tmp_path: Path) -> None:
    path = good(tmp_path / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        old = models.get("m")
        await models.load("m")
        assert models.get("m") is old, "an unchanged file is not loaded again"
        good(path, precision="fp16")
        loading = asyncio.create_task(models.load("m"))
        while not loading.done():
            models.get("m")
            await asyncio.sleep(0.001)
        await loading
        assert models.get("m").model.metadata["precision"] == "fp16"
        await models.close()
        with pytest.raises(UnavailableError):
            await infer(old)

    run(scenario())


def test_requests_in_hand_are_answered_by_the_model_that_is_being_replaced(tmp_path: Path) -> None:
    path = good(tmp_path / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        old = models.get("m")
        asked = [asyncio.create_task(infer(old)) for _ in range(100)]
        with old.users:
            good(path, precision="fp16")
            await models.load("m")
            assert len(await asyncio.gather(*asked)) == 100
            # Its body may still be on its way while the model is replaced.
            await infer(old)
        await models.close()

    run(scenario())


def test_a_corrupted_new_version_leaves_the_old_one_serving_and_says_why(tmp_path: Path) -> None:
    good(tmp_path / "m" / "1" / "model.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        wrong(tmp_path / "m" / "2" / "model.onnx")
        with pytest.raises(RequestError, match=r"^load failed for model 'm': .* it does not give the outputs"):
            await models.load("m")
        assert models.get("m").version == "1"
        assert models.is_ready
        assert [(row["version"], row["state"]) for row in models.index()] == [("1", "READY"), ("2", "UNAVAILABLE")]

    run(scenario())


def test_a_corrupted_file_leaves_what_was_loaded_from_it_serving(tmp_path: Path) -> None:
    path = good(tmp_path / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(RequestError, match="not an ONNX file, or one cut short"):
            await models.load("m")
        assert models.get("m").version == "1"
        (row,) = models.index()
        assert (row["state"], "cut short" in row["reason"]) == ("READY", True)

    run(scenario())


def test_an_unloaded_model_is_away_until_it_is_loaded(tmp_path: Path) -> None:
    good(tmp_path / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        await models.unload("m")
        assert models.is_ready, "what was unloaded on purpose is not missed"
        with pytest.raises(UnavailableError):
            models.get("m")
        await models.poll()
        assert models.names == []
        await models.load("m")
        assert models.get("m").version == "1"
        with pytest.raises(UnknownError):
            await models.unload("x")

    run(scenario())


def test_a_new_process_leaves_unloaded_what_was_unloaded(tmp_path: Path) -> None:
    good(tmp_path / "m.onnx")
    good(tmp_path / "n.onnx")

    async def scenario() -> None:
        models = repository(tmp_path, unloaded=("m",))
        await models.load_all()
        assert models.names == ["n"]
        assert models.is_ready

    run(scenario())


def test_polling_follows_the_files(tmp_path: Path) -> None:
    path = good(tmp_path / "m" / "1" / "model.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        good(tmp_path / "n.onnx")
        good(tmp_path / "m" / "2" / "model.onnx")
        await models.poll()
        assert (models.names, models.versions("m")) == (["m", "n"], ["1", "2"])
        shutil.rmtree(path.parent)
        os.remove(tmp_path / "n.onnx")
        await models.poll()
        assert (models.names, models.versions("m")) == (["m"], ["2"])
        with pytest.raises(UnknownError):
            models.get("n")

    run(scenario())


def refusals(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.message == "refused" for record in caplog.records)


def test_a_run_that_loses_its_model_serves_on_and_says_so(tmp_path: Path) -> None:
    model = good(tmp_path / "run" / "model.onnx")
    good(tmp_path / "run" / "model-fp16.onnx", precision="fp16")
    (tmp_path / "run" / "retrain").mkdir()
    (tmp_path / "run" / "retrain" / "config.toml").touch()

    async def scenario() -> None:
        models = repository(tmp_path / "run")
        await models.load_all()
        model.unlink()
        [told_of] = await models.poll()
        assert told_of == f"{tmp_path / 'run'}: no model.onnx in this directory; `enas export` writes it"
        assert models.names == ["run"]
        await models.close()

    run(scenario())


def test_weights_beside_a_model_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good(tmp_path / "models" / "other.onnx")
    whole = onnx.load(good(tmp_path / "whole.onnx"))
    path, weights = (tmp_path / "models" / "m" / "1" / name for name in ("model.onnx", "model.data"))
    path.parent.mkdir(parents=True)
    onnx.save_model(whole, path, save_as_external_data=True, size_threshold=0, location=weights.name)
    weights.rename(tmp_path / weights.name)

    async def scenario() -> None:
        models = repository(tmp_path / "models")
        await models.load_all()
        await models.poll()
        assert (models.is_ready, refusals(caplog)) == (False, 1)
        shutil.copy(tmp_path / weights.name, weights)
        assert await models.poll() == []
        assert models.is_ready
        weights.write_bytes(bytes(weights.stat().st_size))
        (reason,) = await models.poll()
        assert "does not give the outputs that it carries" in reason

    run(scenario())


def test_a_model_that_could_not_be_read_is_read_at_the_next_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good(tmp_path / "m.onnx")

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    async def scenario() -> None:
        models = repository(tmp_path, unloaded=("m",))
        await models.load_all()
        with monkeypatch.context() as patch:
            patch.setattr("runtime.serving.models.repository.read_model", fail)
            with pytest.raises(RequestError, match="Input/output error"):
                await models.load("m")
            await models.poll()
            assert refusals(caplog) == 1
        await models.poll()
        assert models.names == ["m"]

    run(scenario())


def test_of_several_versions_only_the_one_that_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1", "2", "3"):
        good(tmp_path / "m" / version / "model.onnx")
    read: list[str] = []

    def fail_for_two(path: Path) -> OnnxFile:
        read.append(path.parent.name)
        if path.parent.name == "2":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read_model(path)

    async def scenario() -> None:
        models = repository(tmp_path)
        monkeypatch.setattr("runtime.serving.models.repository.read_model", fail_for_two)
        await models.load_all()
        assert sorted(read) == ["1", "2", "3"]
        await models.poll()
        assert read[3:] == ["2"]
        monkeypatch.undo()
        assert await models.poll() == []
        assert models.versions("m") == ["1", "2", "3"]

    run(scenario())


def test_what_was_refused_is_tried_again_if_one_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / "m.onnx")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    async def scenario() -> None:
        models = repository(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(ServedModel, "open", fail)
            with pytest.raises(ArtifactError, match="out of memory"):
                await models.load_all()
        assert await models.poll() == ["out of memory"]
        assert await models.poll(retry=True) == []
        assert models.names == ["m"]

    run(scenario())


def test_a_scan_that_fails_leaves_everything_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / "m.onnx")

    def fail(root: Path, *_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(root))

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        with monkeypatch.context() as patch:
            patch.setattr("runtime.serving.models.layout._find", fail)
            await models.poll()
            with pytest.raises(UnknownError):
                await models.load("n")
        good(tmp_path / "n.onnx")
        await models.poll()
        assert models.names == ["m", "n"]
        monkeypatch.setattr("runtime.serving.models.layout._find", fail)
        with pytest.raises(ArtifactError, match=r"cannot be read: Input/output error$"):
            await repository(tmp_path).load_all()

    run(scenario())


def test_a_file_that_is_renamed_into_place_is_taken_though_time_and_size_are_equal(tmp_path: Path) -> None:
    path = good(tmp_path / "m.onnx", precision="fp32")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        status = path.stat()
        new = good(tmp_path / "new", precision="fp16")
        assert new.stat().st_size == status.st_size
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(new, path)
        await models.poll()
        assert models.get("m").model.metadata["precision"] == "fp16"

    run(scenario())


def test_loading_where_the_last_file_has_gone_is_a_model_that_is_unknown(tmp_path: Path) -> None:
    path = good(tmp_path / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        path.unlink()
        with pytest.raises(UnknownError, match=r"^failed to load 'm', there is no such model"):
            await models.load("m")

    run(scenario())


def test_a_model_that_is_passed_over_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good(tmp_path / "m.onnx")
    good(tmp_path / "my model.onnx")

    async def scenario() -> None:
        models = repository(tmp_path)
        await models.load_all()
        await models.poll()
        assert passed_over() == [tmp_path / "my model.onnx"]
        good(tmp_path / "my other model.onnx")
        await models.poll()
        await models.poll()
        assert passed_over() == [tmp_path / "my model.onnx", tmp_path / "my other model.onnx"]

    def passed_over() -> list[Path]:
        return [Path(vars(record)["path"]) for record in caplog.records if record.message == "passed over"]

    run(scenario())


def test_a_folder_that_has_gone_is_logged_when_it_goes_and_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runtime.serving.models.repository")
    good(tmp_path / "models" / "m.onnx")

    async def scenario() -> None:
        models = repository(tmp_path / "models")
        await models.load_all()
        caplog.clear()
        (tmp_path / "models").rename(tmp_path / "away")
        for _ in range(3):
            await models.poll()
        assert caplog.messages == [f"{tmp_path}/models: no such file or directory"]
        assert models.names == ["m"], "what was loaded serves on"
        (tmp_path / "away").rename(tmp_path / "models")
        for _ in range(3):
            await models.poll()
        assert caplog.messages[1:] == ["models are found again"]

    run(scenario())


# --- where batches run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "places"), [("tiny", ["thread", "loop", "loop"]), ("cats-sequence", ["thread"] * 3)])
def test_short_batches_run_in_the_event_loop_unless_the_shapes_of_inputs_differ(
    repository_path: Path, model: str, places: list[str]
) -> None:
    seen, this = [], threading.get_ident()

    async def scenario() -> None:
        models = repository(repository_path)
        await models.load_all()
        served = models.get(model, None)
        feed = {
            spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
            for spec in served.signature.inputs
        }
        for _ in range(3):
            await infer(served, feed)

    def ran(*_: object, **__: object) -> None:
        seen.append("loop" if threading.get_ident() == this else "thread")

    # However slow this machine is.
    with (
        patch.object(ModelMetrics, "ran", ran),
        patch.multiple(pace, _SHORT_S=1000.0, _SHORT_ALONE_S=1000.0),
    ):
        run(scenario())
    assert seen == places
