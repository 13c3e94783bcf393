"""Generates text with a language model, one token after the other."""

# V vocabulary

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foundation.seeds import numpy_generator
from runtime.models.language_model import StepModel


class GenerationError(ValueError):
    """A model cannot continue a text."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """Divides the logits: below 1, likely tokens become likelier; at 0 the likeliest token is always chosen."""
    top_k: int | None = None
    """Choose among this number of likeliest tokens; None: among all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise GenerationError(f"temperature is {self.temperature}, but must be a number from 0 on")
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k is {self.top_k}, but must be at least 1")


def generate(model: StepModel, prompt: Sequence[int], *, length: int, sampling: Sampling) -> Iterator[int]:
    """Yields `length` tokens that continue `prompt`, each as soon as it is chosen.

    An empty prompt begins a line. The token for unknown tokens is never chosen.

    Raises: GenerationError: the prompt is empty and the vocabulary has no end of line, or a logit is not finite.
        InputError: the prompt contains a token that is not in the vocabulary.
    """
    generator = numpy_generator(sampling.seed, "generate")
    unread = list(prompt) or [_line_start(model)]
    state = model.zero_state(1)
    for _ in range(length):
        for token in unread:
            logits, state = model.step(np.array([token]), state)
        if not np.isfinite(logits).all():
            raise GenerationError(f"{model.path}: a logit is not finite after {model.tokenizer.decode([token])!r}")
        token = _choose(logits[0], excluded=model.tokenizer.unknown_token, sampling=sampling, generator=generator)
        yield token
        unread = [token]


def _line_start(model: StepModel) -> int:
    token = model.tokenizer.line_end_token
    if token is None:
        raise GenerationError(f"{model.path}: it knows no lines to begin, so it needs a prompt")
    return token


def _choose(logits: np.ndarray, *, excluded: int | None, sampling: Sampling, generator: np.random.Generator) -> int:
    """Chooses a token by its logits [V]."""
    logits = logits.astype(np.float64)
    if excluded is not None:
        logits[excluded] = -np.inf
    if sampling.temperature == 0:
        return int(logits.argmax())
    best = np.argsort(-logits, kind="stable")[: sampling.top_k]
    # A very low temperature sends all but the best to minus infinity, as it should.
    with np.errstate(over="ignore"):
        weights = np.exp((logits[best] - logits[best[0]]) / sampling.temperature)
    return int(generator.choice(best, p=weights / weights.sum()))
