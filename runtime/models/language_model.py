"""A recurrent language model, exported as two files with the same weights: for single tokens and for whole sequences.

A text starts from the zero state; the output state of a call is the input state of the next.
"""

# B batch, T time, H hidden size, V vocabulary

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runtime.models.artifact import (
    SEQUENCE_MODEL,
    Artifact,
    GoldenCheck,
    InputError,
    open_artifact,
    require_kind,
    require_sound,
)
from runtime.models.providers import Provider
from runtime.models.tokenizer import Tokenizer, TokenizerError
from runtime.models.tolerance import Tolerance

_STEP_OUTPUTS = ("logits", "next_state")
_SEQUENCE_OUTPUTS = ("log_probs", "next_state")


class Step(NamedTuple):
    logits: np.ndarray
    """[B, V] float32, for the next token."""
    next_state: np.ndarray
    """[B, H] float32."""


class Scores(NamedTuple):
    log_probs: np.ndarray
    """[B, T] float32, natural logarithm of each target's probability."""
    next_state: np.ndarray
    """[B, H] float32."""


@dataclass(frozen=True)
class LanguageModel(Artifact, ABC):
    """The interface of both files: a vocabulary, a state, and the probability of a text."""

    tokenizer: Tokenizer
    hidden_size: int
    """H, the size of one text's state."""

    @abstractmethod
    def score(self, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray) -> Scores:
        """The log-probability of each target, given the tokens up to its position.

        Args: tokens, targets: [B, T] int64, B >= 1, T >= 1. state: [B, H] float32, after all earlier tokens.
        Raises: InputError: an array of another type or shape, or a token that is not in the vocabulary.
        """

    def zero_state(self, batch: int) -> np.ndarray:
        """The state before a text begins: [B, H] float32."""
        return np.zeros((batch, self.hidden_size), dtype=np.float32)

    def check_golden(self) -> GoldenCheck:
        """Score the texts embedded in the model and compare with the embedded log-probabilities.

        Raises: ArtifactError: there are none, or they cannot be read.
        """
        with self.reading_golden() as golden:
            tolerance = Tolerance.of(golden)
            expected = [np.array(values, dtype=np.float32) for values in golden["log_probs"]]
            found = [self._score_alone(np.array(tokens, dtype=np.int64)) for tokens in golden["tokens"]]
            if not found or [values.shape for values in found] != [values.shape for values in expected]:
                raise ValueError("there must be samples, and a log-probability for every token of each but the first")
        return GoldenCheck.of(found, expected, tolerance=tolerance)

    def _score_alone(self, tokens: np.ndarray) -> np.ndarray:
        """Log-probabilities [N - 1] of all tokens [N] except the first, each given the tokens before it."""
        log_probs: np.ndarray = self.score(tokens[None, :-1], tokens[None, 1:], self.zero_state(1)).log_probs[0]
        return log_probs

    def _check_sequences(self, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray) -> None:
        self._check_tokens("tokens", tokens, ("batch", "time"))
        self._check_tokens("targets", targets, tokens.shape)
        self._check_state(state, batch=len(tokens))

    def _check_tokens(self, name: str, tokens: np.ndarray, axes: Sequence[str | int]) -> None:
        _check_array(name, tokens, np.int64, axes)
        if tokens.size == 0:
            raise InputError(f"{name} of shape {list(tokens.shape)} hold no token")
        highest = len(self.tokenizer.vocabulary) - 1
        if tokens.min() < 0 or tokens.max() > highest:
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise InputError(f"{name} hold {wrong}, but the vocabulary's tokens are 0 to {highest}")

    def _check_state(self, state: np.ndarray, *, batch: int) -> None:
        _check_array("state", state, np.float32, (batch, self.hidden_size))


@dataclass(frozen=True)
class StepModel(LanguageModel):
    """Inputs `tokens` int64 [B], `state` float32 [B, H]; outputs `logits` [B, V], `next_state` [B, H]."""

    @classmethod
    def open(cls, path: Path, *, provider: Provider = "auto", threads: int | None = None) -> StepModel:
        """Open a model file, or the `model.onnx` of a run directory. Raises: as `open_artifact` and `of`."""
        return cls.of(*open_artifact(path, provider=provider, threads=threads))

    @classmethod
    def of(cls, artifact: Artifact, problems: Sequence[str]) -> StepModel:
        """Check that an artifact is a language model of single steps.

        Args: problems: those that `open_artifact` found.
        Raises: ArtifactError: it is another kind of model, or has problems.
        """
        require_kind(artifact, "a language model of single steps")
        inputs = {"tokens": ("tensor(int64)", ("batch",)), "state": ("tensor(float)", ("batch", "hidden size"))}
        return cls(**vars(artifact), **_checked_parts(artifact, problems, inputs=inputs, outputs=_STEP_OUTPUTS))

    def step(self, tokens: np.ndarray, state: np.ndarray) -> Step:
        """Read one token of every text.

        Args: tokens: [B] int64, B >= 1. state: [B, H] float32, after all earlier tokens.
        Raises: InputError: an array of another type or shape, or a token that is not in the vocabulary.
        """
        self._check_tokens("tokens", tokens, ("batch",))
        self._check_state(state, batch=len(tokens))
        return self._run(tokens, state)

    def score(self, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray) -> Scores:
        self._check_sequences(tokens, targets, state)
        log_probs = np.empty(tokens.shape, dtype=np.float32)
        for t in range(tokens.shape[1]):
            logits, state = self._run(tokens[:, t], state)
            log_probs[:, t] = np.take_along_axis(_log_softmax(logits), targets[:, t, None], axis=1)[:, 0]
        return Scores(log_probs, state)

    def _run(self, tokens: np.ndarray, state: np.ndarray) -> Step:
        return Step(*self.session.ort.run(_STEP_OUTPUTS, {"tokens": tokens, "state": state}))


@dataclass(frozen=True)
class SequenceModel(LanguageModel):
    """Inputs `tokens` and `targets` int64 [B, T], `state` float32 [B, H]; outputs `log_probs` [B, T], `next_state`."""

    @classmethod
    def open(cls, path: Path, *, provider: Provider = "auto", threads: int | None = None) -> SequenceModel:
        """Open a model file, or the `model-sequence.onnx` of a run directory. Raises: as `open_artifact` and `of`."""
        return cls.of(*open_artifact(path, file=SEQUENCE_MODEL, provider=provider, threads=threads))

    @classmethod
    def of(cls, artifact: Artifact, problems: Sequence[str]) -> SequenceModel:
        """Check that an artifact is a language model of whole sequences.

        Args: problems: those that `open_artifact` found.
        Raises: ArtifactError: it is another kind of model, or has problems.
        """
        require_kind(artifact, "a language model of whole sequences")
        inputs = {
            "tokens": ("tensor(int64)", ("batch", "time")),
            "targets": ("tensor(int64)", ("batch", "time")),
            "state": ("tensor(float)", ("batch", "hidden size")),
        }
        return cls(**vars(artifact), **_checked_parts(artifact, problems, inputs=inputs, outputs=_SEQUENCE_OUTPUTS))

    def score(self, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray) -> Scores:
        self._check_sequences(tokens, targets, state)
        return Scores(*self.session.ort.run(_SEQUENCE_OUTPUTS, {"tokens": tokens, "targets": targets, "state": state}))


def _check_array(name: str, array: np.ndarray, dtype: type, axes: Sequence[str | int]) -> None:
    """Args: axes: a number is the required size of the axis; a name allows any size."""
    same_sizes = len(array.shape) == len(axes) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(axes, array.shape, strict=True)
    )
    if array.dtype != dtype or not same_sizes:
        found, expected = (f"[{', '.join(map(str, sizes))}]" for sizes in (array.shape, axes))
        raise InputError(f"{name}: found {array.dtype} {found}, but the model takes {np.dtype(dtype).name} {expected}")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """[B, V] -> [B, V] float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def _checked_parts(
    artifact: Artifact,
    problems: Sequence[str],
    *,
    inputs: Mapping[str, tuple[str, Sequence[str]]],
    outputs: Sequence[str],
) -> dict[str, Any]:
    """The fields that a language model adds to an artifact.

    Args: inputs: type and axes of each. Raises: ArtifactError: there are problems, given or found here.
    """
    ort = artifact.session.ort
    problems = [*problems, *_signature_problems(ort, inputs=inputs, outputs=outputs)]
    try:
        if not isinstance(document := artifact.metadata.get("tokenizer"), dict):
            raise TokenizerError("not an object")
        tokenizer = Tokenizer.from_json(document)
    except TokenizerError as error:
        problems.append(f"enas.tokenizer: {error}")
    require_sound(artifact, problems or _disagreements(ort, tokenizer))
    hidden_size = next(value.shape[1] for value in ort.get_inputs() if value.name == "state")
    return {"tokenizer": tokenizer, "hidden_size": hidden_size}


def _signature_problems(
    ort: Any, *, inputs: Mapping[str, tuple[str, Sequence[str]]], outputs: Sequence[str]
) -> list[str]:
    found = {value.name: value for value in ort.get_inputs()}
    problems = []
    if set(found) != set(inputs):
        problems.append(f"its inputs are {', '.join(found)}, expected {', '.join(inputs)}")
    for name, (kind, axes) in inputs.items():
        value = found.get(name)
        if value is not None and (value.type != kind or len(value.shape) != len(axes)):
            problems.append(f"{name} is {value.type} {value.shape}, expected {kind} [{', '.join(axes)}]")
        elif value is not None and name == "state" and not isinstance(value.shape[1], int):
            problems.append(f"state is {value.shape}, but its hidden size must be a number")
    given = {value.name for value in ort.get_outputs()}
    return problems + [f"it has no output {name}" for name in outputs if name not in given]


def _disagreements(ort: Any, tokenizer: Tokenizer) -> list[str]:
    """Contradictions between the graph and the metadata, each valid by itself."""
    logits = next((value for value in ort.get_outputs() if value.name == "logits"), None)
    if logits is None or logits.shape[-1] == len(tokenizer.vocabulary):
        return []
    return [f"enas.tokenizer has {len(tokenizer.vocabulary)} tokens, but logits are {logits.shape}"]
