"""Perplexity of an exported language model on a split of a data set store."""

# S streams, L targets of a stream

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datasets.streams import EVALUATION_STREAMS, split_streams
from datasets.tokens import UNITS
from runtime.models.language_model import LanguageModel
from runtime.scoring.evaluate import EvaluationError, first_difference

if TYPE_CHECKING:
    from datasets.store import TextStore

# Bounds the memory of a call: a graph may hold the logits of all tokens of a call at once.
_WINDOW = 64
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class TextEvaluation:
    nll: float
    """Mean negative log-probability over the tokens, nats."""
    count: int
    """Number of predicted tokens: all of the split except the first."""

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll)

    @property
    def bits_per_token(self) -> float:
        return self.nll / math.log(2)


def evaluate_text(
    model: LanguageModel, *, store: TextStore, split: str, advance: Callable[[int], object] = lambda num_tokens: None
) -> TextEvaluation:
    """Score `model` on a split, cut into `EVALUATION_STREAMS` streams, as training does.

    Every stream starts from the zero state and carries its state to its end.

    Args: advance: called with the number of tokens after every window, for a progress bar.
    Raises: EvaluationError: the store's vocabulary is not the model's, or a log-probability is not finite. StoreError:
        there is no such split, or it is too short.
    """
    _check_match(model, store)
    streams = split_streams(store.stream(split), EVALUATION_STREAMS)
    num_streams, length = streams.inputs.shape
    state = model.zero_state(num_streams)
    total, count = 0.0, 0
    for start in range(0, length, _WINDOW):
        window = np.s_[:, start : start + _WINDOW]
        log_probs, state = model.score(streams.inputs[window], streams.targets[window], state)
        counted = log_probs[streams.weights[window] > 0]
        if not np.isfinite(counted).all():
            stop = min(start + _WINDOW, length)
            raise EvaluationError(
                f"{model.path}: a log-probability is not finite in tokens {start} to {stop - 1} of the streams"
            )
        total += float(counted.sum(dtype=np.float64))
        count += counted.size
        advance(counted.size)
    nll = -total / count
    if nll > _LARGEST_EXPONENT:
        raise EvaluationError(f"{model.path}: the mean log-probability is {-nll:.0f}, too small to give a perplexity")
    return TextEvaluation(nll, count)


def _check_match(model: LanguageModel, store: TextStore) -> None:
    tokenizer = model.tokenizer
    theirs, ours = UNITS[store.tokens], UNITS[tokenizer.tokens]
    if theirs != ours:
        raise EvaluationError(f"{store.name}: its tokens are {theirs}, but those of {model.path} are {ours}")
    if tuple(store.vocabulary) != tokenizer.vocabulary:
        difference = first_difference(store.vocabulary, tokenizer.vocabulary, noun="token", path=model.path)
        raise EvaluationError(f"{store.name}: {difference}")
