"""Other forms of a model ship only where they pass their gates, and then say what is true of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from datasets.catalog import load
from datasets.store import ImageStore
from datasets.store_writer import write_image_store
from exporter.conversion import any_size
from exporter.conversion.any_size import write_any_size
from exporter.conversion.convert import check, describe
from exporter.conversion.transforms.int8 import needs_reduced_range
from exporter.conversion.transforms.passes import transform
from exporter.delivery import variants
from exporter.delivery.acceptance import EQUALITY, AccuracyLoss
from exporter.delivery.forms import FORMS
from exporter.delivery.variants import VARIANTS, Trial, is_current, make_variants, remove_stale
from exporter.delivery.verify import compare
from runtime.benchmarking.targets import remark_of
from runtime.models.model import Model
from runtime.models.tolerance import Tolerance
from runtime.scoring.evaluate import evaluate
from searcher.arch.spec import Spec
from tests.exporter.conversion.transforms.networks import as_recorded, deployed, images, random_spec
from tests.killed import kill_at_every_change
from tests.runtime.conftest import metadata, save, tiny_graph
from tests.searcher.conftest import CLASSES

SHAPE = (10, 10, 1)
COUNTS = {"train": 40, "valid": 60, "test": 50}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageStore]:
    """A run's folder with a model, and a data set whose labels are that model's answers."""
    folder = tmp_path_factory.mktemp("variants")
    spec: Spec = random_spec("stages", 8, input_shape=SHAPE)
    network = deployed(spec)
    splits = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        pictures = np.roll(images(SHAPE, count=count), number, axis=1)
        with torch.no_grad():
            splits[split] = (pictures, network(torch.from_numpy(pictures))[0].argmax(1).numpy())
    splits["train"][1][: len(CLASSES)] = range(len(CLASSES))  # a class without an image is refused
    write_image_store(folder / "own.h5", name="own", splits=splits, classes=CLASSES, source="made", licence="CC0-1.0")
    model = transform(as_recorded(network, SHAPE))
    pictures = splits["test"][0][:3]
    with torch.no_grad():
        logits = network(torch.from_numpy(pictures))[0].numpy()
    describe(
        model,
        spec,
        golden_images=pictures,
        golden_logits=logits,
        tolerance=Tolerance(),
        accuracy={"split": "test", "value": 1.0, "count": COUNTS["test"]},
        drawing="",
        origin={"weights": "random"},
        resize="squash",
    )
    (folder / "model.onnx").write_bytes(check(model))
    store = load(str(folder / "own.h5"))
    assert isinstance(store, ImageStore)
    return folder, store


@pytest.fixture
def run(made: tuple[Path, ImageStore], tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes((made[0] / "model.onnx").read_bytes())
    return tmp_path


def nothing(_: str) -> None:
    pass


def test_forms_for_another_machine_are_whole_models_that_say_they_are_unmeasured(
    made: tuple[Path, ImageStore], run: Path
) -> None:
    trials = make_variants(run, made[1], ["int8", "fp16"], points=100, goal="elsewhere", log=nothing)
    assert len(trials) == 8
    for name in ("int8", "fp16"):
        (kept,) = (trial for trial in trials if trial.kept and trial.name == name)
        for other in (trial for trial in trials if trial.name == name and trial is not kept):
            more = "more accurate" if kept.accuracy > other.accuracy else "as accurate, and was tried first"
            assert other.reason == f"another setting is {more}"
        model = Model.open(run / f"model-{name}.onnx", provider="cpu")
        assert model.check_golden().passed  # its own samples: the float32 file's differ
        assert model.metadata["precision"] == name
        assert model.metadata["accuracy"]["value"] == kept.test_accuracy
        assert evaluate(model, store=made[1], split="test", batch_size=7).accuracy.value == kept.test_accuracy
        assert model.metadata["variant"]["ms"] is None
        assert model.metadata["variant"]["reason"] == "for another machine: speed is unmeasured"
        assert remark_of(list(model.predict(made[1].images("test")))) is None
    operations = {node.op_type for node in onnx.load(run / "model-int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operations
    document = json.loads((run / VARIANTS).read_text())
    assert document["trials"] == [asdict(trial) for trial in trials]
    assert is_current(run, ["int8"], points=100, goal="elsewhere")
    assert not is_current(run, ["int8"], points=100, goal="speed")


def test_a_form_that_is_not_asked_for_stays_listed_with_its_own_gates(made: tuple[Path, ImageStore], run: Path) -> None:
    """Of a document of schema 1, too, which has one goal, and points, for all trials."""
    earlier = asdict(Trial("int8", "minmax", "speed", 0.5, 0.9, 0.9, 100, True, kept=True))
    sha256 = Model.open(run / "model.onnx", provider="cpu").sha256
    gates = {key: earlier.pop(key) for key in ("goal", "points")}
    (run / VARIANTS).write_text(json.dumps({"schema": 1, "model_sha256": sha256, **gates, "trials": [earlier]}))
    (run / "model-int8.onnx").touch()
    (trial,) = make_variants(run, made[1], ["fp16"], points=100, goal="elsewhere", log=nothing)
    assert json.loads((run / VARIANTS).read_text())["trials"] == [earlier | gates, asdict(trial)]
    assert is_current(run, ["int8"], points=0.5, goal="speed")
    assert is_current(run, ["fp16"], points=100, goal="elsewhere")
    assert not is_current(run, ["int8", "fp16"], points=100, goal="elsewhere")
    remove_stale(run)
    assert (run / "model-int8.onnx").exists()


def test_of_train_only_the_images_of_calibration_are_read(
    made: tuple[Path, ImageStore], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> np.ndarray:
        raise AssertionError

    monkeypatch.setattr(ImageStore, "images", refuse)
    images = variants._calibration_images(made[1])
    settings, model = next(FORMS["int8"].candidates(onnx.load(run / "model.onnx"), lambda: images))
    assert settings.startswith("minmax")
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_a_kill_at_any_moment_leaves_whole_variants_or_none(made: tuple[Path, ImageStore], run: Path) -> None:
    def look() -> None:
        for path in run.glob("model*.onnx"):
            assert Model.open(path, provider="cpu", threads=1).check_golden().passed
        if (run / VARIANTS).exists():
            assert is_current(run, ["fp16"], points=100, goal="elsewhere")

    def make() -> None:
        make_variants(run, made[1], ["fp16"], points=100, goal="elsewhere", log=nothing)

    assert kill_at_every_change(make, run, look) >= 4
    assert is_current(run, ["fp16"], points=100, goal="elsewhere")


def test_a_form_that_gains_no_time_is_not_kept(made: tuple[Path, ImageStore], run: Path) -> None:
    """A CPU computes float16 by way of float32."""
    (run / "model-fp16.onnx").write_bytes(b"an earlier one")
    (trial,) = make_variants(run, made[1], ["fp16"], points=100, goal="speed", log=nothing)
    assert trial.speed_up is not None
    assert trial.speed_up < 1.05
    assert not trial.kept
    assert trial.reason == f"{trial.speed_up:.2f} times as fast here; 1.05 is asked"
    assert not (run / "model-fp16.onnx").exists()


def test_a_form_that_loses_accuracy_is_not_kept(made: tuple[Path, ImageStore], run: Path) -> None:
    """One with weights beyond float16's range, whose products become infinite."""
    model = onnx.load(run / "model.onnx")
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    large = onnx.numpy_helper.to_array(weight) * np.float32(1e6)
    weight.CopyFrom(onnx.numpy_helper.from_array(large, weight.name))
    (run / "model.onnx").write_bytes(check(model))
    (trial,) = make_variants(run, made[1], ["fp16"], points=0.5, goal="elsewhere", log=nothing)
    assert not trial.kept
    assert trial.reason == "a logit is not finite" or "points of accuracy on valid" in trial.reason
    assert not (run / "model-fp16.onnx").exists()


def test_a_form_that_is_no_smaller_is_not_kept_for_size(made: tuple[Path, ImageStore], run: Path) -> None:
    """In a network of six weights the casts weigh more than what float16 saves."""
    save(run / "model.onnx", tiny_graph(SHAPE), metadata(SHAPE))
    (trial,) = make_variants(run, made[1], ["fp16"], points=100, goal="size", log=nothing)
    assert not trial.kept
    assert trial.reason == f"{trial.num_bytes:,} bytes for {(run / 'model.onnx').stat().st_size:,}"
    assert not (run / "model-fp16.onnx").exists()


def test_a_form_that_is_smaller_is_kept_for_size_though_it_is_slower(made: tuple[Path, ImageStore], run: Path) -> None:
    (trial,) = make_variants(run, made[1], ["fp16"], points=100, goal="size", log=nothing)
    assert trial.kept
    assert trial.num_bytes < (run / "model.onnx").stat().st_size
    assert Model.open(run / "model-fp16.onnx", provider="cpu").metadata["variant"]["ms"] == trial.ms


def test_the_form_that_resizes_inside_says_all_that_the_model_says(run: Path) -> None:
    any_size, own = (Model.open(path, provider="cpu") for path in (write_any_size(run), run / "model.onnx"))
    assert any_size.metadata == own.metadata
    assert any_size.check_golden().passed
    np.testing.assert_array_equal(any_size.predict(images(SHAPE)).logits, own.predict(images(SHAPE)).logits)


def test_the_form_that_resizes_inside_stays_with_its_model(run: Path) -> None:
    path = write_any_size(run)
    any_size.remove_stale(run)
    assert path.exists()
    model = onnx.load(run / "model.onnx")
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, run / "model.onnx")
    any_size.remove_stale(run)
    assert not path.exists()
    any_size.remove_stale(run)


def test_forms_of_another_model_are_removed(run: Path) -> None:
    (run / "model-int8.onnx").touch()
    (run / VARIANTS).write_text(json.dumps({"model_sha256": "of another"}))
    remove_stale(run)
    assert sorted(path.name for path in run.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(("wrong", "accepted"), [(0, True), (2, True), (3, False)])
def test_accuracy_may_fall_by_the_points_allowed_and_no_more(wrong: int, accepted: bool) -> None:
    expected = np.tile([[1.0, 0.0]], (400, 1))
    found = expected.copy()
    found[:wrong] = [0.0, 1.0]
    labels = np.zeros(400, dtype=np.int64)
    comparison = compare("valid", 1, found, expected, labels=labels, tolerance=Tolerance())
    assert AccuracyLoss(0.5).accepts(comparison) is accepted
    assert EQUALITY.accepts(comparison) is (wrong == 0)


def test_a_logit_that_is_no_number_is_never_accepted() -> None:
    expected = np.tile([[1.0, 0.0]], (4, 1))
    found = expected.copy()
    found[0, 1] = np.nan
    labels = np.zeros(4, dtype=np.int64)
    comparison = compare("valid", 1, found, expected, labels=labels, tolerance=Tolerance())
    assert not AccuracyLoss(100).accepts(comparison)


@pytest.mark.parametrize(
    ("cpuinfo", "reduced"),
    [
        ("flags\t\t: fpu avx2 fma\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", False),
        ("flags\t\t: avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd asimddp\n", False),
        ("", True),
    ],
)
def test_weights_have_seven_bits_where_pairs_of_products_would_overflow(
    tmp_path: Path, cpuinfo: str, reduced: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert needs_reduced_range(tmp_path / "cpuinfo") is reduced


def test_a_cpu_that_does_not_say_gets_seven_bits(tmp_path: Path) -> None:
    assert needs_reduced_range(tmp_path / "missing")


def test_a_trial_that_was_not_measured_has_no_times() -> None:
    trial = Trial("int8", "minmax", "speed", 0.5, 0.9, 0.9, 100, True)
    assert (trial.ms, trial.base_ms, trial.speed_up) == (None, None, None)
