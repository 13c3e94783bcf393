"""Opens an exported model as the class of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from runtime.models.artifact import Artifact, open_artifact
from runtime.models.language_model import SequenceModel, StepModel
from runtime.models.model import Model
from runtime.models.providers import Provider

AnyModel: TypeAlias = Model | StepModel | SequenceModel


def open_model(path: Path, *, provider: Provider = "auto", threads: int | None = None) -> AnyModel:
    """Open a model file, or the `model.onnx` of a run directory, as the class of its kind.

    Raises: ArtifactError: not a complete model from `enas export`. ProviderError: CUDA was requested but is
        unavailable.
    """
    return model_of(*open_artifact(path, provider=provider, threads=threads))


def model_of(artifact: Artifact, problems: Sequence[str]) -> AnyModel:
    """The artifact as the class of its kind.

    Args: problems: those already found in its metadata.
    Raises: ArtifactError: not a complete model from `enas export`.
    """
    match artifact.kind:
        case "an image classifier":
            return Model.of(artifact, problems)
        case "a language model of single steps":
            return StepModel.of(artifact, problems)
        case "a language model of whole sequences":
            return SequenceModel.of(artifact, problems)
