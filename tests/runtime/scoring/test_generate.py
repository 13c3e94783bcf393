import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from runtime.models.artifact import InputError
from runtime.models.language_model import StepModel
from runtime.scoring.generate import GenerationError, Sampling, generate
from tests.runtime.conftest import save
from tests.runtime.language_models import CHARACTERS, DECODER, WORDS, expected_logits, metadata, step_graph

UNKNOWN = WORDS.index("<unk>")


@pytest.fixture
def model(tmp_path: Path) -> StepModel:
    return StepModel.open(save(tmp_path / "step.onnx", step_graph(), metadata()), provider="cpu")


def _known(logits: np.ndarray) -> np.ndarray:
    """The logits with the unknown token's out of reach."""
    return np.where(np.arange(len(WORDS)) == UNKNOWN, -np.inf, logits)


def test_without_temperature_the_likeliest_token_follows(model: StepModel) -> None:
    prompt = [1, 2]
    found = list(generate(model, prompt, length=12, sampling=Sampling(temperature=0)))
    text = list(prompt)
    for _ in range(12):
        text.append(int(_known(expected_logits(text)[-1]).argmax()))
    assert found == text[2:]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 100)])
def test_tokens_come_as_often_as_their_probability(model: StepModel, temperature: float, top_k: int | None) -> None:
    logits = _known(expected_logits([2])[-1])
    kept = np.sort(logits)[::-1][: min(top_k or len(WORDS), len(WORDS))]
    weights = np.where(logits >= kept[-1], np.exp(logits / temperature), 0)
    num_draws = 2000
    first = [
        next(generate(model, [2], length=1, sampling=Sampling(temperature=temperature, top_k=top_k, seed=seed)))
        for seed in range(num_draws)
    ]
    found = np.bincount(first, minlength=len(WORDS)) / num_draws
    # Four standard deviations of a share of 2,000 draws.
    np.testing.assert_allclose(found, weights / weights.sum(), atol=4 * 0.5 / num_draws**0.5)
    assert found[weights == 0].sum() == 0


def test_the_best_one_alone_is_the_greedy_choice(model: StepModel) -> None:
    greedy = list(generate(model, [1], length=20, sampling=Sampling(temperature=0)))
    assert list(generate(model, [1], length=20, sampling=Sampling(top_k=1))) == greedy
    assert list(generate(model, [1], length=20, sampling=Sampling(temperature=1e-300))) == greedy


def test_equal_seeds_give_equal_texts_and_others_do_not(model: StepModel) -> None:
    texts = [list(generate(model, [1], length=30, sampling=Sampling(seed=seed))) for seed in (3, 3, 4)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_unknown_is_never_said(tmp_path: Path) -> None:
    decoder = np.zeros_like(DECODER)
    model = StepModel.open(save(tmp_path / "m.onnx", step_graph(decoder=decoder), metadata()), provider="cpu")
    tokens = list(generate(model, [1], length=300, sampling=Sampling(temperature=5)))
    assert set(tokens) == set(range(len(WORDS))) - {UNKNOWN}


def test_an_empty_prompt_begins_a_line(model: StepModel) -> None:
    sampling = Sampling(seed=1)
    assert list(generate(model, [], length=9, sampling=sampling)) == list(
        generate(model, [WORDS.index("<eos>")], length=9, sampling=sampling)
    )


def test_a_model_without_lines_needs_a_prompt(tmp_path: Path) -> None:
    vocabulary = CHARACTERS[1:]
    path = save(tmp_path / "m.onnx", step_graph(num_tokens=len(vocabulary)), metadata(vocabulary))
    model = StepModel.open(path, provider="cpu")
    with pytest.raises(GenerationError, match=f"^{re.escape(f'{path}: it knows no lines to begin, so it needs a')}"):
        next(generate(model, [], length=1, sampling=Sampling()))
    assert len(list(generate(model, [0], length=5, sampling=Sampling()))) == 5


def test_tokens_come_as_soon_as_they_are_chosen(model: StepModel) -> None:
    assert len(list(islice(generate(model, [1], length=10**12, sampling=Sampling()), 3))) == 3


def test_a_model_that_gives_no_numbers_cannot_go_on(tmp_path: Path) -> None:
    path = save(tmp_path / "nan.onnx", step_graph(decoder=np.full_like(DECODER, np.nan)), metadata())
    model = StepModel.open(path, provider="cpu")
    with pytest.raises(GenerationError, match=f"^{re.escape(f'{path}: a logit is not finite after ')}'cat'$"):
        next(generate(model, [1, 2], length=1, sampling=Sampling()))


def test_a_prompt_outside_the_vocabulary_is_refused(model: StepModel) -> None:
    with pytest.raises(InputError, match="tokens hold 5"):
        next(generate(model, [1, 5], length=1, sampling=Sampling()))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0, but must be a number from 0 on"),
        ({"temperature": float("nan")}, "temperature is nan, but must be a number from 0 on"),
        ({"temperature": float("inf")}, "temperature is inf, but must be a number from 0 on"),
        ({"top_k": 0}, "top_k is 0, but must be at least 1"),
    ],
)
def test_sampling_out_of_range_is_refused(sampling: dict[str, float], message: str) -> None:
    with pytest.raises(GenerationError, match=f"^{re.escape(message)}$"):
        Sampling(**sampling)  # type: ignore[arg-type]
