import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.models.artifact import ArtifactError, InputError
from runtime.models.kinds import open_model
from runtime.models.language_model import LanguageModel, SequenceModel, StepModel
from runtime.models.model import Model
from tests.runtime import conftest
from tests.runtime.conftest import save
from tests.runtime.language_models import (
    DECODER,
    HIDDEN,
    WORDS,
    expected_log_probs,
    expected_logits,
    metadata,
    save_run,
    sequence_graph,
    step_graph,
)


def _texts(batch: int, length: int) -> np.ndarray:
    """[B, T] int64."""
    return np.random.default_rng(0).integers(0, len(WORDS), (batch, length))


@pytest.fixture
def step_model(tmp_path: Path) -> StepModel:
    return StepModel.open(save(tmp_path / "step.onnx", step_graph(), metadata()), provider="cpu")


@pytest.fixture
def sequence_model(tmp_path: Path) -> SequenceModel:
    return SequenceModel.open(save(tmp_path / "sequence.onnx", sequence_graph(), metadata()), provider="cpu")


@pytest.fixture(params=["step", "sequence"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Either file: what both promise."""
    return request.getfixturevalue(f"{request.param}_model")


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_texts_are_read_token_by_token_in_any_batch(step_model: StepModel, batch: int) -> None:
    texts = _texts(batch, 6)
    state, found = step_model.zero_state(batch), []
    for t in range(texts.shape[1]):
        logits, state = step_model.step(texts[:, t], state)
        found.append(logits)
    np.testing.assert_allclose(np.stack(found, axis=1), [expected_logits(text) for text in texts], atol=1e-5)


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (2, 3), (33, 20)])
def test_a_text_has_the_probability_that_numpy_gives_it(model: LanguageModel, batch: int, length: int) -> None:
    texts = _texts(batch, length)
    log_probs, _ = model.score(texts[:, :-1], texts[:, 1:], model.zero_state(batch))
    np.testing.assert_allclose(log_probs, [expected_log_probs(text) for text in texts], atol=1e-5)


def test_a_text_read_in_pieces_has_the_probability_of_the_whole(model: LanguageModel) -> None:
    tokens, targets = _texts(2, 7), _texts(2, 7)[:, ::-1].copy()
    whole, last_state = model.score(tokens, targets, model.zero_state(2))
    first, state = model.score(tokens[:, :3], targets[:, :3], model.zero_state(2))
    second, state = model.score(tokens[:, 3:], targets[:, 3:], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-6)
    np.testing.assert_allclose(state, last_state, atol=1e-6)


def test_both_files_end_in_the_same_state(step_model: StepModel, sequence_model: SequenceModel) -> None:
    texts = _texts(3, 5)
    states = [m.score(texts, texts, m.zero_state(3)).next_state for m in (step_model, sequence_model)]
    np.testing.assert_allclose(*states, atol=1e-6)


# --- input ------------------------------------------------------------------------------------------------------------

_STATE = np.zeros((2, HIDDEN), np.float32)
_BAD_TOKENS = [
    (np.zeros(2), "tokens: found float64 [2], but the model takes int64 [batch]"),
    (np.zeros((2, 1), np.int64), "tokens: found int64 [2, 1], but the model takes int64 [batch]"),
    (np.zeros(0, np.int64), "tokens of shape [0] hold no token"),
    (np.array([0, 5]), "tokens hold 5, but the vocabulary's tokens are 0 to 4"),
    (np.array([-1, 5]), "tokens hold -1, but the vocabulary's tokens are 0 to 4"),
]
_BAD_STATES = [
    (np.zeros((2, HIDDEN)), "state: found float64 [2, 3], but the model takes float32 [2, 3]"),
    (np.zeros((1, HIDDEN), np.float32), "state: found float32 [1, 3], but the model takes float32 [2, 3]"),
    (np.zeros((2, 4), np.float32), "state: found float32 [2, 4], but the model takes float32 [2, 3]"),
    (np.zeros(HIDDEN, np.float32), "state: found float32 [3], but the model takes float32 [2, 3]"),
]


def _refused(call: Callable[..., object], *arguments: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call(*arguments)


@pytest.mark.parametrize(("tokens", "message"), _BAD_TOKENS)
def test_other_tokens_are_refused_by_a_step(step_model: StepModel, tokens: np.ndarray, message: str) -> None:
    _refused(step_model.step, tokens, _STATE, message=message)


@pytest.mark.parametrize(("state", "message"), _BAD_STATES)
def test_another_state_is_refused(model: LanguageModel, state: np.ndarray, message: str) -> None:
    _refused(model.score, _texts(2, 4), _texts(2, 4), state, message=message)
    if isinstance(model, StepModel):
        _refused(model.step, np.array([0, 1]), state, message=message)


@pytest.mark.parametrize(
    ("tokens", "targets", "message"),
    [
        (_texts(2, 4)[0], _texts(2, 4), "tokens: found int64 [4], but the model takes int64 [batch, time]"),
        (_texts(2, 4), _texts(2, 3), "targets: found int64 [2, 3], but the model takes int64 [2, 4]"),
        (_texts(2, 0), _texts(2, 0), "tokens of shape [2, 0] hold no token"),
        (_texts(2, 4), _texts(2, 4) + 5, "targets hold 9, but the vocabulary's tokens are 0 to 4"),
    ],
)
def test_other_sequences_are_refused(
    model: LanguageModel, tokens: np.ndarray, targets: np.ndarray, message: str
) -> None:
    _refused(model.score, tokens, targets, _STATE, message=message)


# --- the texts a model carries ----------------------------------------------------------------------------------------


def test_a_model_reproduces_the_log_probabilities_it_carries(model: LanguageModel) -> None:
    check = model.check_golden()
    assert (check.passed, check.count) == (True, 2)
    assert check.max_difference < 1e-4


def _with_golden(path: Path, **changes: Any) -> StepModel:
    golden = {key: value for key, value in (metadata()["golden"] | changes).items() if value is not None}
    return StepModel.open(save(path, step_graph(), metadata(golden=golden)), provider="cpu")


def test_a_model_that_gives_other_log_probabilities_than_it_carries_fails(tmp_path: Path) -> None:
    log_probs = metadata()["golden"]["log_probs"]
    log_probs[1][0] += 0.5
    check = _with_golden(tmp_path / "off.onnx", log_probs=log_probs).check_golden()
    assert not check.passed
    assert check.max_difference == pytest.approx(0.5, abs=1e-3)


def test_a_log_probability_that_is_not_a_number_fails(tmp_path: Path) -> None:
    path = save(tmp_path / "nan.onnx", step_graph(decoder=np.full_like(DECODER, np.nan)), metadata())
    assert not StepModel.open(path, provider="cpu").check_golden().passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atol": None}, "'atol' is missing"),
        ({"tokens": [], "log_probs": []}, "there must be samples"),
        ({"tokens": [[0, 1]]}, "there must be samples, and a log-probability for every token of each but the first"),
        ({"tokens": [[0, 1], [1, 77]]}, "targets hold 77, but the vocabulary's tokens are 0 to 4"),
        ({"tokens": [[0]]}, "tokens of shape [1, 0] hold no token"),
        ({"tokens": [["the", "cat"]]}, "invalid literal for int"),
    ],
)
def test_a_model_without_readable_golden_texts_cannot_replay_them(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = _with_golden(tmp_path / "m.onnx", **changes)
    with pytest.raises(ArtifactError, match=re.escape(f"{model.path}: enas.golden: {message}")):
        model.check_golden()


# --- files of another kind, or broken ---------------------------------------------------------------------------------


def test_a_file_is_opened_as_what_it_is(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    images = save(tmp_path / "images.onnx", conftest.tiny_graph(), conftest.metadata())
    assert type(open_model(run, provider="cpu")) is StepModel
    assert type(open_model(run / "model-sequence.onnx", provider="cpu")) is SequenceModel
    assert type(open_model(images, provider="cpu")) is Model


def test_a_run_directory_stands_for_the_file_that_is_asked_of_it(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    assert StepModel.open(run, provider="cpu").path == run / "model.onnx"
    assert SequenceModel.open(run, provider="cpu").path == run / "model-sequence.onnx"
    (run / "model-sequence.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"no model-sequence.onnx in this directory; `enas export` writes it$"):
        SequenceModel.open(run, provider="cpu")


def test_a_model_of_another_kind_is_told_in_one_line(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    step, sequence = run / "model.onnx", run / "model-sequence.onnx"
    images = save(tmp_path / "images.onnx", conftest.tiny_graph(), conftest.metadata())
    for kind, path, message in (
        (Model, step, "a language model of single steps, but an image classifier is needed"),
        (SequenceModel, step, "a language model of single steps, but a language model of whole sequences is needed"),
        (StepModel, sequence, "a language model of whole sequences, but a language model of single steps is needed"),
        (StepModel, images, "an image classifier, but a language model of single steps is needed"),
    ):
        with pytest.raises(ArtifactError, match=f"^{re.escape(f'{path}: {message}')}$"):
            kind.open(path, provider="cpu")


def test_all_that_is_wrong_with_a_language_model_is_told_at_once(tmp_path: Path) -> None:
    graph = step_graph()
    graph.input[1].name = graph.node[1].input[0] = "memory"
    graph.output[0].name = graph.node[-1].output[0] = "scores"
    path = save(tmp_path / "m.onnx", graph, metadata(tokenizer=None), broken={"accuracy": "91 %"})
    with pytest.raises(ArtifactError) as caught:
        open_model(path, provider="cpu")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "not a whole model of `enas export`: enas.accuracy is not JSON",
        "its inputs are tokens, memory, expected tokens, state",
        "it has no output logits",
        "enas.tokenizer: not an object",
    ):
        assert part in message


def test_inputs_of_another_type_or_shape_are_told(tmp_path: Path) -> None:
    graph = step_graph()
    graph.input[1].type.tensor_type.shape.dim[1].dim_param = "hidden"
    with pytest.raises(ArtifactError, match=re.escape("state is ['batch', 'hidden'], but its hidden size must be")):
        open_model(save(tmp_path / "m.onnx", graph, metadata()), provider="cpu")

    graph = step_graph()
    graph.input[0].type.tensor_type.elem_type = 6
    with pytest.raises(ArtifactError, match=re.escape("tokens is tensor(int32) ['batch'], expected tensor(int64) [b")):
        open_model(save(tmp_path / "m.onnx", graph, metadata()), provider="cpu")


def test_a_vocabulary_that_contradicts_the_graph_is_told(tmp_path: Path) -> None:
    tokenizer = metadata()["tokenizer"] | {"vocabulary": ["<eos>", "<unk>"]}
    with pytest.raises(ArtifactError, match=re.escape("enas.tokenizer has 2 tokens, but logits are ['batch', 5]")):
        open_model(save(tmp_path / "m.onnx", step_graph(), metadata(tokenizer=tokenizer)), provider="cpu")
