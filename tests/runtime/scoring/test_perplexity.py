import math
import re
from pathlib import Path

import numpy as np
import pytest

from datasets.store import StoreError, TextStore, open_store
from datasets.store_writer import write_text_store
from datasets.tokens import Tokens
from runtime.models.language_model import LanguageModel, SequenceModel, StepModel
from runtime.scoring.evaluate import EvaluationError
from runtime.scoring.perplexity import evaluate_text
from tests.runtime.conftest import save
from tests.runtime.language_models import (
    DECODER,
    WORDS,
    expected_log_probs,
    metadata,
    save_run,
    sequence_graph,
    step_graph,
)


def _store(path: Path, test: np.ndarray, *, vocabulary: tuple[str, ...] = WORDS, tokens: Tokens = "word") -> TextStore:
    splits = {"train": np.arange(3), "test": test}
    write_text_store(
        path,
        name="cats",
        splits=splits,
        vocabulary=vocabulary,
        source="made up",
        licence="none",
        tokens=tokens,
    )
    store = open_store(path)
    assert isinstance(store, TextStore)
    return store


def _text(length: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, len(WORDS), length)


@pytest.fixture(params=[StepModel, SequenceModel])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModel:
    """Either file: they must give the same number."""
    return request.param.open(save_run(tmp_path / "run"), provider="cpu")


# Fewer targets than streams, padding in the last streams, no padding, several windows.
@pytest.mark.parametrize("length", [2, 20, 33, 34, 97, 32 * 150 + 7])
def test_perplexity_is_what_numpy_gives_over_32_streams(model: LanguageModel, tmp_path: Path, length: int) -> None:
    text = _text(length)
    per_stream = math.ceil((length - 1) / min(32, length - 1))
    # A stream reads the token before its first target, too.
    streams = [text[start : start + per_stream + 1] for start in range(0, length - 1, per_stream)]
    expected = np.concatenate([expected_log_probs(stream) for stream in streams])
    told: list[int] = []
    result = evaluate_text(model, store=_store(tmp_path / "s.h5", text), split="test", advance=told.append)
    assert result.count == sum(told) == len(expected) == length - 1
    assert result.nll == pytest.approx(-expected.mean(), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(-expected.mean()), rel=1e-5)
    assert result.bits_per_token == pytest.approx(-np.log2(np.exp(expected)).mean(), rel=1e-5)


def test_the_length_of_the_windows_changes_nothing(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path / "s.h5", _text(1000))
    whole = evaluate_text(model, store=store, split="test")
    monkeypatch.setattr("runtime.scoring.perplexity._WINDOW", 7)
    assert evaluate_text(model, store=store, split="test").nll == pytest.approx(whole.nll, rel=1e-7)


def test_the_same_words_are_scored_however_they_were_parted(tmp_path: Path) -> None:
    model = SequenceModel.open(save_run(tmp_path / "run"), provider="cpu")
    stores = [_store(tmp_path / f"{tokens}.h5", _text(9), tokens=tokens) for tokens in ("word", "whitespace")]
    assert len({evaluate_text(model, store=store, split="test").nll for store in stores}) == 1


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "message"),
    [
        (WORDS, "char", "its tokens are characters, but those of {path} are words"),
        (("<eos>", "the", "dog", "sat", "<unk>"), "word", "token 2 is 'dog', but {path} knows it as 'cat'"),
        ((*WORDS, "mat"), "word", "6 tokens, but {path} knows 5"),
    ],
)
def test_another_vocabulary_is_refused(
    model: LanguageModel, tmp_path: Path, vocabulary: tuple[str, ...], tokens: Tokens, message: str
) -> None:
    store = _store(tmp_path / "s.h5", _text(9), vocabulary=vocabulary, tokens=tokens)
    with pytest.raises(EvaluationError, match=f"^{re.escape('cats: ' + message.format(path=model.path))}$"):
        evaluate_text(model, store=store, split="test")


def test_a_split_that_is_not_there_or_too_short_is_told(model: LanguageModel, tmp_path: Path) -> None:
    store = _store(tmp_path / "s.h5", _text(1))
    with pytest.raises(StoreError, match="no split 'valid'"):
        evaluate_text(model, store=store, split="valid")
    with pytest.raises(StoreError, match="at least 2 are needed"):
        evaluate_text(model, store=store, split="test")


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (np.full_like(DECODER, np.nan), "a log-probability is not finite in tokens 0 to 2 of the streams"),
        (DECODER * 1e5, "the mean log-probability is -"),
    ],
)
def test_a_model_that_gives_no_probabilities_has_no_perplexity(
    tmp_path: Path, decoder: np.ndarray, message: str
) -> None:
    store = _store(tmp_path / "s.h5", _text(97))
    path = tmp_path / "broken.onnx"
    for kind, graph in ((StepModel, step_graph), (SequenceModel, sequence_graph)):
        model = kind.open(save(path, graph(decoder=decoder), metadata()), provider="cpu")
        with pytest.raises(EvaluationError, match=f"^{re.escape(f'{path}: {message}')}"):
            evaluate_text(model, store=store, split="test")
