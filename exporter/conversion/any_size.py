"""A run's second form for callers who do not resize: `model-any-size.onnx`, which takes pictures of any size."""

from __future__ import annotations

from pathlib import Path

import onnx

from exporter.conversion.convert import check
from exporter.conversion.transforms.resize_inside import resize_inside
from foundation.files import whole_file
from runtime.models.artifact import MODEL, ArtifactError, load
from runtime.models.model import Model
from runtime.models.onnx_file import OnnxFile

ANY_SIZE_MODEL = "model-any-size.onnx"


def write_any_size(run: Path) -> Path:
    """Writes the form beside the run's model if it reproduces the model's golden outputs; returns its path.

    Raises: ArtifactError: there is no model, or its form gives other outputs.
    """
    data, path = _form_of(run), run / ANY_SIZE_MODEL
    golden = Model.of(*load(OnnxFile(path, data), provider="cpu", threads=1)).check_golden()
    if not golden.passed:
        raise ArtifactError(f"{path}: its outputs differ from the model's by up to {golden.max_difference:.3g}")
    with whole_file(path) as unfinished:
        unfinished.write_bytes(data)
    return path


def remove_stale(run: Path) -> None:
    """Removes the form if it was made from another model than the run's, because it would look like the run's."""
    path = run / ANY_SIZE_MODEL
    if not path.exists():
        return
    try:
        is_own = path.read_bytes() == _form_of(run)
    except ArtifactError:
        is_own = False
    if not is_own:
        path.unlink()


def _form_of(run: Path) -> bytes:
    model = Model.open(run / MODEL, provider="cpu", threads=1)
    shape, resize = model.image_shape, model.preprocess.resize
    return check(resize_inside(onnx.load(run / MODEL), input_shape=shape, resize=resize))
