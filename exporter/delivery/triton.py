"""A run's model in a Triton repository: `NAME/config.pbtxt`, `NAME/1/model.onnx`, and the meaning of its outputs.

For an image classifier that is `labels.txt`. A language model is written in the form that takes single steps: its state
comes with every request, so that Triton can batch texts without handling sequences; `vocabulary.json` contains its
tokens, in order. Beside the folder, `NAME.kserve.yaml` lets KServe serve the repository. Our own server serves the same
folder.
Source: Triton's `model_config.proto`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.delivery.kserve import inference_service
from exporter.latency.measure import measure
from foundation.files import strict_json, whole_folder, write_text
from runtime.models.artifact import MODEL, ArtifactError
from runtime.models.inputs import inputs_of, outputs_of
from runtime.models.kinds import AnyModel, open_model
from runtime.models.model import Model
from runtime.serving.protocol.signature import configured

_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_GAIN = 0.95
"""A larger batch is preferred if its time per image or token is at most this part of a smaller batch's."""
_QUEUE_DELAY_US = 100
_MODEL, _GOLDEN, _CONFIG = f"1/{MODEL}", "warmup/golden", "config.pbtxt"
_LABELS, _VOCABULARY = "labels.txt", "vocabulary.json"
_WRITTEN = {_MODEL, _GOLDEN, _CONFIG, _LABELS, _VOCABULARY}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ENUMS = ("data_type", "kind")


def write_triton(run: Path, repository: Path, *, gpu: bool = False) -> Path:
    """Write the run's model into a repository atomically; returns its folder there, which has the run's name.

    gpu: whether its instances are for GPUs, one on each, rather than for CPUs.
    Raises: ArtifactError: there is no model; or as `folder_of`.
    """
    folder = folder_of(run, repository)
    name = folder.name
    model = open_model(run / MODEL, provider="cpu", threads=1)
    with whole_folder(folder) as unfinished:
        for file in (_MODEL, _GOLDEN):
            (unfinished / file).parent.mkdir()
        shutil.copyfile(run / MODEL, unfinished / _MODEL)
        (unfinished / _GOLDEN).write_bytes(_golden_input(model))
        meaning, text = _meaning(model)
        (unfinished / meaning).write_text(text, encoding="utf-8")
        (unfinished / _CONFIG).write_text(text_format(configuration(model, name, gpu=gpu)), encoding="utf-8")
    write_text(repository / f"{name}.kserve.yaml", inference_service(name, gpu=gpu))
    return folder


def folder_of(run: Path, repository: Path) -> Path:
    """The folder of a run's model in a repository, which has the run's name.

    Raises: ArtifactError: no model can have that name, or the folder contains files that no earlier export wrote, for
    example because it is the run itself: they would be lost.
    """
    name = run.absolute().name
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"{run}: {name!r} cannot be the name of a model: letters, digits, '.', '_' and '-' can")
    folder = repository / name
    if folder.exists() and not _is_exported(folder):
        raise ArtifactError(
            f"{folder}: there is something else; --triton makes a folder of the run's name in DIR, or replaces "
            "one that it made: give another DIR"
        )
    return folder


def _is_exported(folder: Path) -> bool:
    """Whether a folder is empty, or contains only what an earlier export wrote."""
    if not folder.is_dir():
        return False
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return not found or (_GOLDEN in found and found <= _WRITTEN)


def _golden_input(model: AnyModel) -> bytes:
    """The bytes of the first input of a golden sample of the model."""
    if isinstance(model, Model):
        images, _ = model.golden_samples()
        return bytes(images[0].tobytes())
    return np.array(model.metadata["golden"]["tokens"][0][0], dtype=np.int64).tobytes()


def _meaning(model: AnyModel) -> tuple[str, str]:
    """Name and text of the file that gives the meaning of the model's outputs."""
    if isinstance(model, Model):
        return _LABELS, "".join(f"{label}\n" for label in model.classes)
    return _VOCABULARY, strict_json(model.tokenizer.vocabulary, indent=None)


def configuration(model: AnyModel, name: str, *, gpu: bool = False) -> dict[str, Any]:
    """Triton's ModelConfig, as a document. For a GPU no batch size is preferred: none was measured there."""
    ort = model.session.ort
    inputs, outputs = configured(inputs_of(ort)), configured(outputs_of(ort))
    if isinstance(model, Model):
        outputs = [{**output, "label_filename": _LABELS} for output in outputs]
    sizes = [] if gpu else preferred_batch_sizes(model.path.read_bytes())
    batching: dict[str, Any] = {"preferred_batch_size": sizes} if sizes else {}
    # For a language model the token is from a golden sample, and the state is that before a text.
    values: list[dict[str, Any]] = [{"input_data_file": "golden"}, *({"zero_data": True} for _ in inputs[1:])]
    warmup = [
        {"key": one["name"], "value": {"data_type": one["data_type"], "dims": one["dims"], **value}}
        for one, value in zip(inputs, values, strict=True)
    ]
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "max_batch_size": _BATCH_SIZES[-1],
        "input": inputs,
        "output": outputs,
        "instance_group": [{"count": 1, "kind": "KIND_GPU" if gpu else "KIND_CPU"}],
        "dynamic_batching": {**batching, "max_queue_delay_microseconds": _QUEUE_DELAY_US},
        "model_warmup": [{"name": "golden", "batch_size": 1, "inputs": warmup}],
    }


def preferred_batch_sizes(model: bytes) -> list[int]:
    """The batch sizes that take less time per input than smaller ones, measured on this machine's CPU, one thread."""
    found: list[int] = []
    least = float("inf")
    for size in _BATCH_SIZES:
        (ms,) = measure([model], batch=size).ms
        if ms.value / size <= _GAIN * least:
            if size > 1:
                found.append(size)
            least = ms.value / size
    return found


def text_format(document: Mapping[str, Any]) -> str:
    """A document as protobuf's text format: names of enums bare, strings quoted."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in document.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                yield f"{indent}{key} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            elif isinstance(one, str) and key not in _ENUMS:
                yield f"{indent}{key}: {json.dumps(one)}"
            else:
                yield f"{indent}{key}: {str(one).lower() if isinstance(one, bool) else one}"
