"""Every kind of exported model, and which of them a file is."""

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
    """Open a model file, or the `model.onnx` of a run directory, as what it is.

    Raises: ArtifactError: not a whole model of ours. ProviderError: CUDA cannot be had.
    """
    return model_of(*open_artifact(path, provider=provider, threads=threads))


def model_of(artifact: Artifact, problems: Sequence[str]) -> AnyModel:
    """An artifact as the kind of model it is.

    Args: problems: what is wrong with its metadata.
    Raises: ArtifactError: not a whole model of ours.
    """
    match artifact.kind:
        case "an image classifier":
            return Model.of(artifact, problems)
        case "a language model of single steps":
            return StepModel.of(artifact, problems)
        case "a language model of whole sequences":
            return SequenceModel.of(artifact, problems)
