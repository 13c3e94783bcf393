"""An opened exported file of any kind: its bytes, session and metadata.

Artifact            the parts that all exported models have
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
"""Beside a `model.onnx` that is a single-step language model: the same network for whole sequences."""
_PREFIX = "enas."
_CODE_PLACE = re.compile(r"\S+\.(?:cc|h):\d+ ")


class ArtifactError(ValueError):
    """A file is not a model we can use."""


class InputError(ValueError):
    """An array does not match the model's input."""


@dataclass(frozen=True)
class GoldenCheck:
    """The result of running a model on the samples embedded in it."""

    passed: bool
    count: int
    max_difference: float
    """Largest |output - recorded output|."""

    @classmethod
    def of(cls, found: Iterable[np.ndarray], expected: Iterable[np.ndarray], *, tolerance: Tolerance) -> GoldenCheck:
        """Args: found, expected: one array [K] per sample; at least one sample."""
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
    """Over the file and its external data files."""
    num_bytes: int
    session: Session
    metadata: Mapping[str, Any]
    """Every `enas.*` entry, parsed, without its prefix: `spec`, `golden`, `drawing`, `accuracy`, `precision`, …"""

    @property
    def kind(self) -> Kind:
        """The kind of model, determined from the names of its inputs."""
        inputs = {value.name for value in self.session.ort.get_inputs()}
        if "tokens" not in inputs:
            return "an image classifier"
        return "a language model of whole sequences" if "targets" in inputs else "a language model of single steps"

    @contextmanager
    def reading_golden(self) -> Iterator[Mapping[str, Any]]:
        """Yields the samples embedded in the model, `enas.golden`.

        Raises: ArtifactError: there are none, or the `with` block raises KeyError, TypeError or ValueError.
        """
        try:
            yield self.metadata["golden"]
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ArtifactError(f"{self.path}: enas.golden: {reason}") from error


def open_artifact(
    path: Path, *, file: str = MODEL, provider: Provider = "auto", threads: int | None = None
) -> tuple[Artifact, Sequence[str]]:
    """Open a model file, or the file named `file` in a run directory.

    The session is created from exactly the bytes that `sha256` covers, unless there are external data files.

    Returns: the artifact, and the problems found in its metadata.
    Raises: ArtifactError: not a complete ONNX file, or not from `enas export`. ProviderError: CUDA was requested but is
        unavailable.
    """
    artifact, problems = load(read_model(Path(path), file=file), provider=provider, threads=threads)
    if not artifact.metadata and not problems:
        raise ArtifactError(f"{artifact.path}: an ONNX model, but not one of `enas export`: it has no enas.* metadata")
    return artifact, problems


def load(
    file: OnnxFile, *, provider: Provider, threads: int | None, tuning: Tuning = DEFAULT_TUNING
) -> tuple[Artifact, Sequence[str]]:
    """Load a model file of any origin into a session.

    Returns: the artifact, and the problems found in its metadata.
    Raises: ArtifactError: not a complete ONNX file. ProviderError: CUDA was requested but is unavailable.
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
    """Read a model file, or the file named `file` in a run directory.

    Raises: ArtifactError: there is no such file.
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
    """The error for a run directory without this file."""
    return ArtifactError(f"{run}: no {file} in this directory; `enas export` writes it")


def require_kind(artifact: Artifact, kind: Kind) -> None:
    """Raises: ArtifactError: it is of another kind."""
    if artifact.kind != kind:
        raise ArtifactError(f"{artifact.path}: {artifact.kind}, but {kind} is needed")


def require_sound(artifact: Artifact, problems: Sequence[str]) -> None:
    """Raises: ArtifactError: there are problems; reports all of them."""
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
    """The message without its C++ location and function, `/…/model.cc:256 a::Model(const b&, int) …`."""
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
