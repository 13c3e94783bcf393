"""One exported file, open: its bytes, its session and its metadata, whatever kind of model it holds.

Artifact            what every exported model has
  Model             model.py: an image classifier
  LanguageModel     language_model.py: a recurrent language model
    StepModel       one token at a time
    SequenceModel   many tokens at once
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from runtime.models.onnx_file import OnnxFile, PartError
from runtime.models.ort_errors import is_onnxruntimes, message_of
from runtime.models.providers import DEFAULT_TUNING, Provider, Session, Tuning, open_session
from runtime.models.tolerance import Tolerance, largest_difference

Kind: TypeAlias = Literal[
    "an image classifier", "a language model of single steps", "a language model of whole sequences"
]

MODEL = "model.onnx"
SEQUENCE_MODEL = "model-sequence.onnx"
"""Beside `model.onnx` where that is a language model of single steps: the same network over whole sequences."""
_PREFIX = "enas."
_CODE_PLACE = re.compile(r"\S+\.(?:cc|h):\d+ ")


class ArtifactError(ValueError):
    """A file is not a model we can use."""


class InputError(ValueError):
    """An array is not what the model takes."""


@dataclass(frozen=True)
class GoldenCheck:
    """The outcome of replaying the samples that a model carries."""

    passed: bool
    count: int
    max_difference: float
    """Largest |output - recorded output|."""

    @classmethod
    def of(cls, found: Iterable[np.ndarray], expected: Iterable[np.ndarray], *, tolerance: Tolerance) -> GoldenCheck:
        """Args: found, expected: one array of numbers [K] for each sample, at least one."""
        pairs = [(own[None], recorded[None]) for own, recorded in zip(found, expected, strict=True)]
        return cls(
            passed=all(bool((tolerance.excess(*pair) <= 1).all()) for pair in pairs),
            count=len(pairs),
            max_difference=max(float(largest_difference(*pair).max()) for pair in pairs),
        )


@dataclass(frozen=True)
class Artifact:
    """An exported file that onnxruntime has loaded."""

    path: Path
    sha256: str
    """Of the file, and of those beside it that hold its weights."""
    num_bytes: int
    session: Session
    metadata: Mapping[str, Any]
    """Every `enas.*` entry, parsed, without its prefix: `spec`, `golden`, `drawing`, `accuracy`, `precision`, …"""

    @property
    def kind(self) -> Kind:
        """What the names of its inputs tell."""
        inputs = {value.name for value in self.session.ort.get_inputs()}
        if "tokens" not in inputs:
            return "an image classifier"
        return "a language model of whole sequences" if "targets" in inputs else "a language model of single steps"

    @contextmanager
    def reading_golden(self) -> Iterator[Mapping[str, Any]]:
        """The samples that the model carries, `enas.golden`.

        Raises: ArtifactError: it carries none, or what is read of them within raises KeyError, TypeError or ValueError.
        """
        try:
            yield self.metadata["golden"]
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ArtifactError(f"{self.path}: enas.golden: {reason}") from error


def open_artifact(
    path: Path, *, file: str = MODEL, provider: Provider = "auto", threads: int | None = None
) -> tuple[Artifact, Sequence[str]]:
    """Open a model file, or the one called `file` in a run directory.

    Unless weights are in files beside it, the session is made of the very bytes that `sha256` is of.

    Returns: the artifact, and what is wrong with its metadata.
    Raises: ArtifactError: not a whole ONNX file, or not one of ours. ProviderError: CUDA cannot be had.
    """
    artifact, problems = load(read_model(Path(path), file=file), provider=provider, threads=threads)
    if not artifact.metadata and not problems:
        raise ArtifactError(f"{artifact.path}: an ONNX model, but not one of `enas export`: it has no enas.* metadata")
    return artifact, problems


def load(
    file: OnnxFile, *, provider: Provider, threads: int | None, tuning: Tuning = DEFAULT_TUNING
) -> tuple[Artifact, Sequence[str]]:
    """A model file of any origin as a session.

    Returns: the artifact, and what is wrong with its metadata.
    Raises: ArtifactError: not a whole ONNX file. ProviderError: CUDA cannot be had.
    """
    try:
        session = open_session(file.source, provider=provider, threads=threads, tuning=tuning)
    except PartError as error:
        raise ArtifactError(f"{file.path}: {error}") from error
    except Exception as error:
        if is_onnxruntimes(error):
            raise ArtifactError(f"{file.path}: {_explain(error, num_bytes=len(file.data))}") from error
        raise
    metadata, problems = _parse_metadata(session.ort.get_modelmeta().custom_metadata_map)
    return Artifact(file.path, file.sha256, file.num_bytes, session, metadata), problems


def read_model(path: Path, *, file: str = MODEL) -> OnnxFile:
    """A model file, or the one called `file` in a run directory.

    Raises: ArtifactError: there is none.
    """
    if path.is_dir():
        if not (path / file).exists():
            raise no_model_in(path, file=file)
        path = path / file
    try:
        return OnnxFile(path, path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file or directory") from None


def no_model_in(run: Path, *, file: str = MODEL) -> ArtifactError:
    """What to raise where a run directory has no such file."""
    return ArtifactError(f"{run}: no {file} in this directory; `enas export` writes it")


def require_kind(artifact: Artifact, kind: Kind) -> None:
    """Raises: ArtifactError: it is of another kind."""
    if artifact.kind != kind:
        raise ArtifactError(f"{artifact.path}: {artifact.kind}, but {kind} is needed")


def require_sound(artifact: Artifact, problems: Sequence[str]) -> None:
    """Raises: ArtifactError: there are problems, all told."""
    if problems:
        raise ArtifactError(f"{artifact.path}: not a whole model of `enas export`: {'; '.join(problems)}")


def _explain(error: Exception, *, num_bytes: int) -> str:
    message = str(error)
    if num_bytes == 0:
        return "the file is empty"
    if "INVALID_PROTOBUF" in message or "No graph was found" in message:
        return f"not an ONNX file, or one cut short ({num_bytes:,} bytes)"
    reason = _without_code(message_of(error)).partition("\n")[0]
    return f"onnxruntime cannot load it: {reason or type(error).__name__}"


def _without_code(message: str) -> str:
    """A message without the C++ function that it comes from, `/…/model.cc:256 a::Model(const b&, int) …`."""
    found = _CODE_PLACE.search(message)
    if found is None or "(" not in message[found.end() :]:
        return message
    depth = 0
    for place in range(message.index("(", found.end()), len(message)):
        depth += {"(": 1, ")": -1}.get(message[place], 0)
        if depth == 0:
            return message[place + 1 :].removeprefix(" const").strip() or message
    return message


def _parse_metadata(entries: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    metadata, problems = {}, []
    for key, text in entries.items():
        if key.startswith(_PREFIX):
            try:
                metadata[key.removeprefix(_PREFIX)] = json.loads(text)
            except json.JSONDecodeError as error:
                problems.append(f"{key} is not JSON ({error})")
    return metadata, problems
