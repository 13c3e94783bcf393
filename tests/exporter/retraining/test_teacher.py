"""A teacher: what it sees, what it says, what is refused, and that learning from it goes on to the bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from datasets.augmentation import Augmentation
from datasets.batches import ImageBatches
from datasets.store import ImageStore
from exporter.retraining.config import RetrainConfig
from exporter.retraining.presets import retrain_preset
from exporter.retraining.retrain import open_teachers, retrain
from exporter.retraining.teacher import TeacherConfig, Teachers, check_confusion
from exporter.retraining.teacher_model import StatedInput, TeacherError, TeacherModel
from foundation.document import ConfigError
from runtime.models.providers import ProviderError
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.spec import Spec, write_spec
from searcher.running.checkpoint import load_checkpoint
from searcher.running.interrupt import Interrupt
from searcher.running.run_folder import Opening, RunFolder
from searcher.training.distillation import Distillation
from searcher.training.image_learner import ImageTraining
from searcher.training.task_kinds import task_of
from tests.end_to_end.comparing import assert_equal_states
from tests.end_to_end.conftest import CLASSES, here
from tests.end_to_end.test_stopped_at_any_step import StopAfter, stop_again_and_again
from tests.exporter.teachers import fitted, write_store, write_teacher
from tests.searcher.conftest import random_stages

CPU = torch.device("cpu")
NAMES = {"enas.classes": json.dumps(CLASSES)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return write_store(tmp_path_factory.mktemp("data") / "shapes.h5")


@pytest.fixture
def teacher(tmp_path: Path, store: ImageStore) -> Path:
    return write_teacher(tmp_path / "teacher.onnx", fitted(store), metadata=NAMES)


def opened(store: ImageStore, *paths: Path, **settings: Any) -> Teachers:
    return Teachers(TeacherConfig(models=tuple(map(str, paths)), **settings), store=store, device=CPU)


def logits_of(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of pixels from 0 to 1, [B, H, W, C]."""
    return pixels.reshape(len(pixels), -1) @ weights[:-1] + weights[-1]


# --- what it sees, and says -------------------------------------------------------------------------------------------


def test_a_teacher_sees_the_augmented_view_to_the_pixel(store: ImageStore, teacher: Path) -> None:
    augmentation = Augmentation(crop_padding=2, flip=True)
    options = {"batch_size": 48, "seed": 0, "epoch": 0, "augmentation": augmentation}
    images, _ = next(ImageBatches.load(store, "train", device="cpu").epoch(**options))
    plain, _ = next(ImageBatches.load(store, "train", device="cpu").epoch(batch_size=48, seed=0, epoch=0))
    assert not torch.equal(images, plain)
    pixels = (images.permute(0, 2, 3, 1).numpy() * np.float32(store.std) + np.float32(store.mean)) * 255
    whole = np.rint(pixels)
    assert np.abs(pixels - whole).max() < 1e-3
    answers = opened(store, teacher)(images)
    assert answers.shape == (48, 1, 3)
    np.testing.assert_allclose(answers[:, 0], logits_of(whole / 255, fitted(store)), atol=1e-4)


@pytest.mark.parametrize(("layout", "shape"), [("nchw", ("batch", 3, 12, 12)), ("nhwc", ("batch", 12, 12, 3))])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_foreign_teacher_gets_its_own_size_layout_colours_and_normalisation(
    tmp_path: Path, store: ImageStore, layout: str, shape: tuple[Any, ...], dtype: str
) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    images = torch.from_numpy(store.images("valid")).permute(0, 3, 1, 2) / 255
    large = functional.interpolate(images, (12, 12), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    wanted = (large - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    seen = (wanted if layout == "nchw" else wanted.permute(0, 2, 3, 1)).reshape(len(images), -1).numpy()
    design = np.concatenate([seen, np.ones((len(seen), 1))], axis=1)
    weights = np.linalg.lstsq(design, np.eye(3)[store.labels("valid")], rcond=0.05)[0].astype(np.float32)
    path = write_teacher(tmp_path / "foreign.onnx", weights, dtype=dtype, shape=shape)
    teachers = opened(store, path, mean=mean, std=std)
    answers = teachers(ImageBatches.load(store, "valid", device="cpu").batch(np.arange(90))[0])[:, 0]
    np.testing.assert_allclose(answers, design @ weights, atol=1e-4 if dtype == "float32" else 1e-2)
    assert teachers.examined[0].accuracy == 1


def test_a_model_of_single_pictures_teaches_batches(tmp_path: Path, store: ImageStore) -> None:
    weights = fitted(store)
    path = write_teacher(tmp_path / "four.onnx", weights, shape=(4, 8, 8, 1))
    images, _ = ImageBatches.load(store, "valid", device="cpu").batch(np.arange(10))
    expected = logits_of(store.images("valid")[:10] / 255, weights)
    np.testing.assert_allclose(opened(store, path)(images)[:, 0], expected, atol=1e-4)


def test_classes_are_put_in_our_order_by_name(tmp_path: Path, store: ImageStore, teacher: Path) -> None:
    order = [2, 0, 1]
    names = repr({number: CLASSES[k] for number, k in enumerate(order)})
    path = write_teacher(tmp_path / "other.onnx", fitted(store)[:, order], metadata={"names": names})
    images, _ = ImageBatches.load(store, "valid", device="cpu").batch(np.arange(10))
    torch.testing.assert_close(opened(store, path)(images), opened(store, teacher)(images))


@pytest.mark.parametrize("names", ["{2: 'a', '0': 'b', 'x': 'c'}", "{None: 'a', 0: 'b', 1: 'c'}", "{1e999: 'a'}", "3"])
def test_names_of_another_form_are_none(tmp_path: Path, store: ImageStore, teacher: Path, names: str) -> None:
    path = write_teacher(tmp_path / "other.onnx", fitted(store), metadata={"names": names})
    images, _ = ImageBatches.load(store, "valid", device="cpu").batch(np.arange(10))
    torch.testing.assert_close(opened(store, path)(images), opened(store, teacher)(images))


def test_names_are_in_the_order_of_their_numbers_however_these_are_written(tmp_path: Path, store: ImageStore) -> None:
    names = {0: CLASSES[0], "1": CLASSES[1], 2: CLASSES[2]}
    path = write_teacher(tmp_path / "other.onnx", fitted(store), metadata={"names": repr(names)})
    assert opened(store, path).examined[0].accuracy == 1


def test_probabilities_teach_as_their_logits_do(tmp_path: Path, store: ImageStore, teacher: Path) -> None:
    path = write_teacher(tmp_path / "soft.onnx", fitted(store), softmax=True)
    images, _ = ImageBatches.load(store, "valid", device="cpu").batch(np.arange(10))
    logits, logs = opened(store, teacher, path)(images).unbind(1)
    torch.testing.assert_close(logs, logits.log_softmax(1), atol=1e-4, rtol=0)


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_hintons_over_the_mean_of_the_teachers_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(5, 3, generator=generator), torch.randn(5, 2, 3, generator=generator)
    distillation = Distillation(lambda _: answers, temperature=4.0, weight=0.5)
    expected = 0.0
    for student, teachers in zip(logits, answers, strict=True):
        wanted = sum((one / 4).softmax(0) for one in teachers) / 2
        expected += 16 * float((wanted * (wanted.log() - (student / 4).log_softmax(0))).sum()) / 5
    assert distillation.loss(logits, answers).item() == pytest.approx(expected, rel=1e-5)
    assert distillation.loss(answers[:, 0], answers[:, :1]).item() == pytest.approx(0, abs=1e-6)


def test_answers_to_fixed_views_are_asked_for_once(store: ImageStore, teacher: Path) -> None:
    teachers, asked = opened(store, teacher), []

    def ask(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return teachers(images)

    batches = ImageBatches.load(store, "train", device="cpu")
    distillation = Distillation(ask, temperature=1.0, weight=1.0)
    for epoch in range(2):
        assert distillation.keep(batches)
        order = batches.order(batch_size=16, seed=0, epoch=epoch)
        for step, (images, _) in enumerate(batches.epoch(batch_size=16, seed=0, epoch=epoch)):
            kept = distillation.answers(images, order[16 * step : 16 * (step + 1)])
            torch.testing.assert_close(kept, teachers(images))
    assert sum(asked) == 48


# --- a retraining with it ---------------------------------------------------------------------------------------------


def spec_of(store: ImageStore) -> Spec:
    task = task_of(store, dataset=str(store.path))
    return Spec(space="stages", architecture=random_stages(0), network=StagesSize(), task=task)


def config_of(teacher: Path | None, **changes: Any) -> RetrainConfig:
    training = ImageTraining(augmentation=changes.pop("augmentation", Augmentation(crop_padding=1, flip=True)))
    models = () if teacher is None else (str(teacher),)
    return replace(
        retrain_preset("stages", "quick"),
        num_epochs=2,
        batch_size=16,
        min_steps=0,
        threads=1,
        training=training,
        teacher=TeacherConfig(models=models, **changes),
    )


def train(store: ImageStore, config: RetrainConfig, path: Path, interrupt: Interrupt | None = None) -> dict[str, Any]:
    folder = RunFolder.open(path, config, Opening(resume=True))
    try:
        return retrain(
            spec_of(store), config, store=store, folder=folder, device=CPU, interrupt=interrupt or Interrupt()
        )
    finally:
        folder.close()


@pytest.mark.parametrize("augmentation", [Augmentation(crop_padding=1, flip=True), Augmentation()], ids=["new", "kept"])
def test_a_stopped_training_with_a_teacher_goes_on_to_the_bit(
    tmp_path: Path, store: ImageStore, teacher: Path, augmentation: Augmentation
) -> None:
    config = config_of(teacher, augmentation=augmentation)
    summary = train(store, config, tmp_path / "whole")
    assert summary["teachers"][0]["valid_accuracy"] == 1

    def run(path: Path, looks: int) -> object:
        return train(store, config, path, StopAfter(looks))

    assert stop_again_and_again(run, tmp_path / "stopped", first_turn=3) > 0
    whole, stopped = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "stopped"))
    assert_equal_states(whole, stopped)
    alone = train(store, config_of(None, augmentation=augmentation), tmp_path / "alone")
    assert "teachers" not in alone
    with pytest.raises(AssertionError):
        assert_equal_states(whole["network"], load_checkpoint(tmp_path / "alone/checkpoint.pt")["network"])


def test_the_run_records_its_teachers_and_refuses_others(
    tmp_path: Path, store: ImageStore, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_spec(tmp_path / "spec.json", spec_of(store))
    second = write_teacher(tmp_path / "second.onnx", fitted(store, seed=1))
    run = ["retrain", tmp_path / "spec.json", "--run", tmp_path / "run", "--epochs", "1", "--device", "cpu"]
    run += ["--threads", "1", "--set", "min_steps=0", "--set", "teacher.temperature=2", "--teacher", teacher]
    done = here(*run, "--teacher", second)
    assert f"teacher {teacher}: 100.00% of 90 images of valid, on CPU" in done.stderr
    config = (tmp_path / "run/retrain/config.toml").read_text()
    assert str(teacher) in config
    assert str(second) in config
    assert "temperature = 2.0" in config
    assert len(json.loads((tmp_path / "run/retrain/summary.json").read_text())["teachers"]) == 2
    refused = here(*run, "--resume", check=False)
    assert "was made with another configuration (teacher.models was" in str(refused.exception)
    # What starts anew has the settings of the run, which a resumed command takes from it.
    refused = here("retrain", tmp_path / "run", "--resume", "--set", "teacher.temperature=3", check=False)
    assert f" --config {tmp_path / 'run/retrain/config.toml'} --force`" in str(refused.exception)
    second.unlink()
    assert "finished before" in here(*run, "--teacher", second, "--resume").stderr  # nothing is left to learn
    (tmp_path / "run/retrain/summary.json").unlink()
    write_teacher(second, fitted(store, seed=2))
    refused = here(*run, "--teacher", second, "--resume", check=False)
    assert f"{second}: no longer the model that the run was begun with" in str(refused.exception)


def test_a_run_teaches_with_the_model_of_what_it_has_retrained(
    tmp_path: Path, store: ImageStore, teacher: Path
) -> None:
    write_spec(tmp_path / "spec.json", spec_of(store))
    run = tmp_path / "teacher"
    (run / "retrain").mkdir(parents=True)
    (run / "retrain" / "best.pt").write_bytes(b"weights")
    shutil.copy(teacher, run / "model.onnx")
    (run / "verification.json").write_text(json.dumps({"weights_sha256": hashlib.sha256(b"weights").hexdigest()}))
    command = ["retrain", tmp_path / "spec.json", "--run", tmp_path / "run", "--epochs", "1", "--device", "cpu"]
    command += ["--threads", "1", "--set", "min_steps=0", "--teacher", run]
    here(*command)
    (run / "retrain" / "best.pt").write_bytes(b"other weights")
    here(*command, "--resume")  # goes on with the model that it was begun with
    refused = here(*command, "--force", check=False)
    told = f"{run}: its model is unverified or of an earlier retraining; export it first: `enas export {run}`"
    assert str(refused.exception) == told


# --- what is refused --------------------------------------------------------------------------------------------------


def damaged(store: ImageStore) -> np.ndarray:
    weights = fitted(store)
    weights[-1, 0] = np.nan
    return weights


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda p, s: write_teacher(p, fitted(s)[:, :2]), {}, "it knows 2 classes, but the data set has 3"),
        (
            lambda p, s: write_teacher(p, fitted(s)[:, :2], metadata={"enas.classes": '["bar", "dot"]'}),
            {},
            "it knows 2 classes, but the data set has 3",
        ),
        (
            lambda p, s: write_teacher(p, fitted(s), metadata={"enas.classes": '["bar", "cat", "dog"]'}),
            {},
            "it knows other classes: 'dot', 'blank' are not among 'bar', 'cat', 'dog', …",
        ),
        (
            lambda p, s: write_teacher(p, fitted(s)[:, [1, 0, 2]]),
            {},
            "it names no classes, and takes 'bar' for 'dot' more often than not: its classes seem to come in another "
            "order than the data set's; if they do not, write `names` into its metadata, the list of them",
        ),
        (
            lambda p, s: write_teacher(p, np.eye(65, 3, dtype=np.float32) * 0, metadata=NAMES),
            {},
            "its balanced accuracy on 90 images of valid is 33.33%, no better than chance; teacher.mean and "
            "teacher.std, or its classes, are not what it was trained with",
        ),
        (lambda p, s: write_teacher(p, damaged(s)), {}, "it answers with numbers that are not finite"),
        (
            lambda p, s: write_teacher(p, fitted(s), dtype="int64", shape=("batch", 64), input_name="tokens"),
            {},
            "it takes tokens tensor(int64) ['batch', 64]; a teacher takes pictures: uint8 or float, four axes",
        ),
        (
            lambda p, s: write_teacher(p, fitted(s), dtype="float32"),
            {"mean": (0.5,)},
            "it takes floats; say how pixels from 0 to 1 are normalised, with a number for each of its 1 channels: "
            "--set teacher.mean=[0.485,0.456,0.406] --set teacher.std=[0.229,0.224,0.225]",
        ),
        (
            lambda p, s: write_teacher(p, fitted(s), shape=("batch", "h", "w", "c")),
            {},
            "it takes images tensor(uint8) ['batch', 'h', 'w', 'c']; say which axis is colour: "
            "--set teacher.layout=nchw",
        ),
        (
            lambda p, s: write_teacher(p, fitted(s)),
            {"sha256": ("0",)},
            "no longer the model that the run was begun with; put that one back, or start anew with --force and the "
            "options that the run was begun with",
        ),
    ],
)
def test_what_cannot_teach_is_refused_by_name(
    tmp_path: Path, store: ImageStore, make: Callable[..., Path], settings: dict[str, Any], message: str
) -> None:
    path = make(tmp_path / "bad.onnx", store)
    with pytest.raises(TeacherError) as error:
        opened(store, path, **settings)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        # Two classes that look alike: 40 pictures of which 21 are right by chance are no sign of another order.
        ([[19, 21, 0], [20, 20, 0], [0, 0, 20]], None),
        ([[0, 4, 0], [4, 0, 0], [0, 0, 4]], "another order"),
        # A rare class: 99 % are right, where the largest class alone makes 90 %.
        ([[90, 0, 0], [1, 9, 0], [0, 0, 1]], None),
        ([[90, 0, 0], [10, 0, 0], [1, 0, 0]], "no better than chance"),
        ([[8, 1, 1], [1, 8, 1], [1, 1, 8]], None),
    ],
)
def test_a_teacher_is_judged_by_more_than_chance(
    store: ImageStore, teacher: Path, rows: list[list[int]], refused: str | None
) -> None:
    model = replace(
        TeacherModel.open(
            str(teacher), classes=CLASSES, image_shape=(8, 8, 1), provider="cpu", threads=1, stated=StatedInput()
        ),
        columns=None,
    )
    if refused is None:
        check_confusion(model, np.array(rows), classes=CLASSES)
    else:
        with pytest.raises(TeacherError, match=refused):
            check_confusion(model, np.array(rows), classes=CLASSES)


def test_a_size_is_for_the_teachers_that_leave_it_open(tmp_path: Path, store: ImageStore, teacher: Path) -> None:
    free = write_teacher(tmp_path / "free.onnx", fitted(store), shape=("batch", "h", "w", "c"), metadata=NAMES)
    teachers = opened(store, teacher, free, size=8, layout="nhwc")
    assert [one.accuracy for one in teachers.examined] == [1, 1]


def test_a_refused_teacher_leaves_no_run(tmp_path: Path, store: ImageStore) -> None:
    write_spec(tmp_path / "spec.json", spec_of(store))
    (tmp_path / "text.onnx").write_text("no model")
    for teacher, words in (("text.onnx", "not an ONNX file"), ("absent.onnx", "no such file")):
        command = ["retrain", tmp_path / "spec.json", "--run", tmp_path / "run", "--teacher", tmp_path / teacher]
        done = here(*command, "--device", "cpu", check=False)
        assert isinstance(done.exception, ValueError)
        assert words in str(done.exception)
        assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_teacher_on_cuda_that_cannot_be_had_is_refused(store: ImageStore, teacher: Path) -> None:
    options: dict[str, Any] = {"classes": CLASSES, "image_shape": (8, 8, 1), "stated": StatedInput()}
    with pytest.raises(ProviderError, match="CUDA cannot be used: "):
        TeacherModel.open(str(teacher), provider="cuda", threads=1, **options)


def test_a_teacher_is_for_images() -> None:
    with pytest.raises(ConfigError, match="a teacher is for images"):
        replace(retrain_preset("recurrent", "quick"), teacher=TeacherConfig(models=("a.onnx",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"temperature is 0.0; expected 0.01 to 1000"),
        ({"temperature": 1e300}, r"temperature is 1e\+300; expected 0.01 to 1000"),
        ({"weight": 1.5}, r"weight is 1.5; expected above 0 and up to 1"),
        ({"size": -1}, r"size is -1; it must not be negative"),
        ({"std": (0.0,)}, r"std must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TeacherConfig(**settings)


def test_without_models_there_is_no_teacher(store: ImageStore) -> None:
    assert open_teachers(config_of(None), store, device=CPU) is None
