from pathlib import Path

import numpy as np
import pytest

from datasets.store import ImageStore, StoreError, open_store
from datasets.store_writer import write_image_store
from runtime.models.model import Model
from runtime.scoring.calibration import Calibration
from runtime.scoring.evaluate import ClassScore, Evaluation, EvaluationError, evaluate
from tests.runtime.conftest import BIAS, CLASSES, SHAPE, expected_logits, metadata, save, tiny_graph

# Label and brightness of the test images: the model calls 0 dark, 128 grey, 255 bright.
TEST = [(0, 0), (0, 0), (0, 128), (1, 128), (1, 255), (1, 255), (2, 255)]

SURE = Calibration.of(np.ones(1), np.ones(1, dtype=bool))


def _store(path: Path, classes: tuple[str, ...] = CLASSES, shape: tuple[int, int, int] = SHAPE) -> ImageStore:
    train = (np.zeros((len(classes), *shape), np.uint8), np.arange(len(classes)))
    test = (
        np.stack([np.full(shape, brightness, np.uint8) for _, brightness in TEST]),
        np.array([label for label, _ in TEST]),
    )
    write_image_store(
        path,
        name="brightness",
        splits={"train": train, "test": test},
        classes=classes,
        source="made up",
        licence="none",
    )
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.fixture
def model(model_path: Path) -> Model:
    return Model.open(model_path, provider="cpu")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_a_split_is_scored_whatever_the_batch_size(model: Model, tmp_path: Path, batch_size: int) -> None:
    told: list[int] = []
    store = _store(tmp_path / "s.h5")
    result = evaluate(model, store=store, split="test", batch_size=batch_size, advance=told.append)
    assert result.confusion.tolist() == [[2, 1, 0], [0, 1, 2], [0, 0, 1]]
    assert (result.correct, result.count, sum(told)) == (4, 7, 7)
    assert result.calibration.counts.sum() == 7
    confidences = _softmax(expected_logits(np.stack([np.full(SHAPE, b, np.uint8) for _, b in TEST]))).max(axis=1)
    hits = np.array([True, True, False, True, False, False, True])
    assert result.calibration.error == pytest.approx(Calibration.of(confidences, hits).error, abs=1e-5)


def test_the_scores_of_every_class() -> None:
    result = Evaluation(("a", "b", "c"), np.array([[2, 1, 1], [0, 0, 0], [0, 0, 4]]), SURE)
    assert result.per_class == [
        ClassScore("a", 4, recall=0.5, precision=1.0),
        ClassScore("b", 0, recall=None, precision=0.0),
        ClassScore("c", 4, recall=1.0, precision=0.8),
    ]
    assert result.mistakes == [[("b", 1), ("c", 1)], [], []]
    assert result.accuracy.value == 0.75


def test_other_images_are_refused(model: Model, tmp_path: Path) -> None:
    store = _store(tmp_path / "s.h5", shape=(28, 28, 3))
    with pytest.raises(EvaluationError) as caught:
        evaluate(model, store=store, split="test", batch_size=8)
    assert str(caught.value) == f"brightness: images are 28 × 28 × 3, but {model.path} takes 6 × 8 × 1"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("dark", "grey", "white"), "class 2 is 'white', but {path} knows it as 'bright'"),
        (("dark", "grey", "bright", "neon"), "4 classes, but {path} knows 3"),
    ],
)
def test_other_classes_are_refused(model: Model, tmp_path: Path, classes: tuple[str, ...], message: str) -> None:
    store = _store(tmp_path / "s.h5", classes)
    with pytest.raises(EvaluationError) as caught:
        evaluate(model, store=store, split="test", batch_size=8)
    assert str(caught.value) == "brightness: " + message.format(path=model.path)


def test_a_split_that_is_not_there_is_told(model: Model, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="valid"):
        evaluate(model, store=_store(tmp_path / "s.h5"), split="valid", batch_size=8)


def test_a_model_that_gives_no_numbers_has_no_accuracy(tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.initializer[2].raw_data = np.full_like(BIAS, np.nan).tobytes()
    model = Model.open(save(tmp_path / "nan.onnx", graph, metadata()), provider="cpu")
    with pytest.raises(EvaluationError, match=r"a logit is not finite in images 0 to 3$"):
        evaluate(model, store=_store(tmp_path / "s.h5"), split="test", batch_size=4)
