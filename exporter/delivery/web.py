"""A run's image classifier as a folder for any web server: a page that classifies pictures in the browser.

    index.html  page.css  page.js       the page
    pictures.js  preprocess.js          code shared with our server's page and with docs/preprocessing.md
    model.onnx  model.json  drawing.svg the model, its description, and a drawing of its architecture
    ort.js  ort.wasm                    onnxruntime-web

The page requests nothing outside the folder; its content security policy forbids it.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from exporter.delivery.onnxruntime_web import runtime_files
from foundation.files import strict_json, whole_folder
from foundation.machine import toolchain_version
from runtime.models.artifact import MODEL, ArtifactError
from runtime.models.model import Model

_ABOUT = "model.json"
_DRAWING = "drawing.svg"
_PAGES = {
    "exporter.delivery": ("page/index.html", "page/page.js", "page/preprocess.js"),
    "runtime.serving": ("web/page.css", "web/pictures.js"),
}


def write_web(run: Path, folder: Path, *, runtime: Path | None = None) -> Path:
    """Write the folder atomically; an earlier one is replaced.

    Args: runtime: the package onnxruntime-web, a folder or an archive; None: npm fetches it.
    Raises: ArtifactError: there is no image classifier, or the folder contains something else. RuntimeFilesError.
    """
    check_is_ours(folder)
    folder = folder.resolve()
    model = Model.open(run / MODEL, provider="cpu", threads=1)
    files = {
        **runtime_files(runtime),
        **{
            name.rpartition("/")[2]: resources.files(package).joinpath(name).read_bytes()
            for package, names in _PAGES.items()
            for name in names
        },
        MODEL: model.path.read_bytes(),
        _ABOUT: strict_json(about(model, run.absolute().name)).encode(),
    }
    if drawing := model.metadata.get("drawing"):
        files[_DRAWING] = drawing.encode()
    with whole_folder(folder) as unfinished:
        for name, data in files.items():
            (unfinished / name).write_bytes(data)
    return folder


def about(model: Model, name: str) -> dict[str, Any]:
    """The description of a model for the page, which cannot read a file's metadata itself."""
    model.golden_samples()  # raises where the page would fail
    return {
        "producer": {"name": "enas-toolchain", "version": toolchain_version()},
        "name": name,
        "labels": model.classes,
        "preprocess": model.metadata["preprocess"],
        "golden": model.metadata["golden"],
        "accuracy": model.metadata.get("accuracy"),
        "precision": model.metadata.get("precision"),
        "sha256": model.sha256,
        "drawing": _DRAWING if model.metadata.get("drawing") else None,
    }


def check_is_ours(folder: Path) -> None:
    """Raises: ArtifactError: the folder contains something other than an earlier page, which would be lost."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        if json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["producer"]["name"] == "enas-toolchain":
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ArtifactError(f"{folder}: there is something else; --web makes a folder of its own, or replaces one it made")
