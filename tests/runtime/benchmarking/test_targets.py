from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.benchmarking.benchmark import Contestant, Plan, measure
from runtime.benchmarking.targets import Facts, FunctionTarget, OnnxTarget, Transfer, remark_of
from runtime.models import providers
from runtime.models.artifact import ArtifactError
from runtime.models.providers import DEFAULT_TUNING
from tests.runtime.conftest import SHAPE, WEIGHT, expected_logits, metadata, save, tiny_graph

FEED = {"images": np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)}


def load(source: Path | bytes, *, transfer: Transfer = Transfer()) -> OnnxTarget:  # noqa: B008
    return OnnxTarget.load("it", source, provider="cpu", threads=1, tuning=DEFAULT_TUNING, transfer=transfer)


def foreign_model(path: Path, *, op: str = "Relu", element: int = TensorProto.FLOAT) -> Path:
    """A model of somebody else: x [n, width] through one operation, without metadata."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "foreign",
        [helper.make_tensor_value_info("x", element, ["n", "width"])],
        [helper.make_tensor_value_info("y", element, ["n", "width"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    "transfer", [Transfer(), Transfer(io_binding=True), Transfer(io_binding=True, copies=False)], ids=str
)
def test_every_way_of_transfer_gives_the_same_answer(model_path: Path, transfer: Transfer) -> None:
    with load(model_path, transfer=transfer).open(FEED, None) as opened:
        call = opened.connect()
        for _ in range(2):
            logits, _ = call()  # type: ignore[misc]
    found = logits if transfer.copies else logits.numpy()
    assert np.allclose(found, expected_logits(FEED["images"]), atol=1e-4)


def test_a_call_whose_inputs_are_bound_reads_them_again_each_time(model_path: Path) -> None:
    images = FEED["images"].copy()
    with load(model_path, transfer=Transfer(io_binding=True)).open({"images": images}, None) as opened:
        call = opened.connect()
        call()
        images[:] = 255
        logits = call()[0]  # type: ignore[index]
    assert np.allclose(logits, expected_logits(images), atol=1e-4)


def test_facts_come_from_the_file(model_path: Path) -> None:
    target = load(model_path)
    assert target.facts.precision == "fp32"
    assert target.facts.accuracy == {"split": "test", "value": 0.9125, "count": 2000}
    assert target.num_classes == 3
    assert str(target.inputs[0]) == "images uint8 [batch, 6, 8, 1]"


def test_a_file_that_no_longer_gives_its_outputs_states_neither_accuracy_nor_precision(tmp_path: Path) -> None:
    """As one that another tool has quantised, which copies what the file says of itself."""
    graph = tiny_graph()
    graph.initializer[1].raw_data = (np.round(WEIGHT / 6) * 5).astype(np.float32).tobytes()
    facts = load(save(tmp_path / "copy.onnx", graph, metadata())).facts
    assert (facts.accuracy, facts.precision) == (None, None)
    assert facts.note == "its accuracy and precision are not stated: it does not give the outputs that it carries"


def test_claims_that_cannot_be_checked_are_not_stated(tmp_path: Path) -> None:
    facts = load(save(tmp_path / "bare.onnx", tiny_graph(), metadata(golden=None))).facts
    assert (facts.accuracy, facts.precision) == (None, None)
    assert facts.note == "its accuracy and precision are not stated: enas.golden: 'golden' is missing"


def test_any_onnx_file_can_be_measured(tmp_path: Path) -> None:
    target = load(foreign_model(tmp_path / "foreign.onnx"))
    assert str(target.inputs[0]) == "x float32 [n, width]"
    assert target.facts.accuracy is None
    feed = {"x": np.ones((2, 5), np.float32)}
    plan = Plan(duration_s=0.02, min_samples=1, sittings=2, warmup_s=0)
    (series,) = measure([Contestant("it", lambda: target.open(feed, None), target.examine)], plan=plan).series
    assert series.failure is None
    assert series.samples_ms.size > 0


def test_a_function_is_cold_once_and_meets_each_shape_once() -> None:
    target = FunctionTarget("f", (), {}, Facts(), lambda images: images)
    plan = Plan(duration_s=0.02, min_samples=1, sittings=2, warmup_s=0)

    def first_calls(batch_size: int) -> list[tuple[bool, bool]]:
        feed = {"images": np.zeros((batch_size, 3))}
        (series,) = measure([Contestant("f", lambda: target.open(feed, None))], plan=plan).series
        assert series.median_ms("open_ms") is None
        return [(sitting.cold_ms is not None, sitting.new_shape_ms is not None) for sitting in series.sittings]

    assert first_calls(1) == [(True, False), (False, False)]
    assert first_calls(4) == [(False, True), (False, False)]


def test_a_language_model_takes_words_of_its_vocabulary(tmp_path: Path) -> None:
    spec = {"task": {"kind": "language-modelling", "vocabulary_size": 50}}
    assert load(save(tmp_path / "m.onnx", tiny_graph(), metadata(spec=spec))).limits["tokens"] == 50


def test_inputs_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "text.onnx", op="Identity", element=TensorProto.STRING)
    with pytest.raises(ArtifactError) as caught:
        load(path)
    assert str(caught.value) == (f"{path}: x is tensor(string); only tensors of numbers are supported")


def test_nan_and_infinity_are_told(tmp_path: Path) -> None:
    target = load(foreign_model(tmp_path / "log.onnx", op="Log"))
    with target.open({"x": np.full((1, 2), -1, np.float32)}, None) as opened:
        assert target.examine(opened.connect()()) == "returns NaN for random inputs"
    assert remark_of([np.array([1.0, np.inf])]) == "returns infinity for random inputs"
    assert remark_of([np.array([1.0]), np.array([1])]) is None


def test_a_model_that_crashes_is_a_failure(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [1], [1.0])],
    )
    path = tmp_path / "gather.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    target = load(path)
    feed = {"i": np.array([7], np.int64)}
    plan = Plan(duration_s=0.02, min_samples=1, sittings=1, warmup_s=0)
    (series,) = measure([Contestant("it", lambda: target.open(feed, None))], plan=plan).series
    assert series.failure is not None
    assert "out of data bounds" in series.failure
    assert "ONNXRuntimeError" not in series.failure


def _without_cuda() -> bool:
    return bool(providers.cuda_obstacles())


@pytest.mark.gpu
@pytest.mark.skipif("_without_cuda()", reason="onnxruntime has no CUDA here")
@pytest.mark.parametrize(
    "transfer", [Transfer(), Transfer(io_binding=True), Transfer(io_binding=True, copies=False)], ids=str
)
def test_every_way_of_transfer_gives_the_same_answer_on_cuda(model_path: Path, transfer: Transfer) -> None:
    tuning = DEFAULT_TUNING if not transfer.io_binding else type(DEFAULT_TUNING)(cuda_graph=True)
    target = OnnxTarget.load("it", model_path, provider="cuda", threads=1, tuning=tuning, transfer=transfer)
    with target.open(FEED, None) as opened:
        call = opened.connect()
        for _ in range(3):
            logits, _ = call()  # type: ignore[misc]
    found = logits if transfer.copies else logits.numpy()
    assert np.allclose(found, expected_logits(FEED["images"]), atol=1e-2)


def test_an_input_of_open_rank_is_told(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "open.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="x has no stated number of dimensions, so no value can be made for it"):
        load(path)


def test_an_input_of_numbers_that_numpy_does_not_have_is_told(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "brain.onnx", op="Identity", element=TensorProto.BFLOAT16)
    with pytest.raises(ArtifactError, match=r"x is tensor\(bfloat16\), numbers that numpy does not have"):
        load(path)
