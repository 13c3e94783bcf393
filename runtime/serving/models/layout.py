"""Finds the models of a server on disk and their names. Opens none of them.

A run or a model file is one model; other forms of a run, such as `model-fp16.onnx`, are served only if the server is
given their path. A folder contains models in Triton's layout, `NAME/VERSION/model.onnx`, runs, or model files.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from runtime.models.artifact import MODEL, SEQUENCE_MODEL, ArtifactError, no_model_in

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# Files rather than folders, since a model in a folder may be named "search".
_MARKS_OF_A_RUN = ("search/config.toml", "retrain/config.toml")

Files = Mapping[str, Path]
"""Version -> file."""
Found = Mapping[str, Files]
"""Name -> its files."""
PassOver = Callable[[Path, str], object]
"""Called with the path of a model that is not served, and the reason."""


def find_models(root: Path, *, pass_over: PassOver = lambda path, reason: None) -> Found:
    """The models to serve. Raises: ArtifactError: there are none, or `root` cannot be read."""
    try:
        return _find(root, pass_over)
    except OSError as error:
        raise ArtifactError(f"{error.filename or root}: cannot be read: {error.strerror or error}") from error


def _find(root: Path, pass_over: PassOver) -> Found:
    if root.is_file():
        name = root.stem if root.name != MODEL else root.absolute().parent.name
        return {_checked(name, root): {"1": root}}
    if (root / MODEL).is_file():
        return _of_run(root, _checked(root.absolute().name, root))
    if not root.is_dir():
        raise ArtifactError(f"{root}: no such file or directory")
    if any((root / mark).is_file() for mark in _MARKS_OF_A_RUN):
        raise no_model_in(root)
    found: dict[str, Files] = {}
    passed_over: list[str] = []

    def leave_out(path: Path, reason: str) -> None:
        pass_over(path, reason)
        passed_over.append(f"; {path}: {reason}")

    for path in sorted(root.iterdir()):
        name = path.stem if path.suffix == ".onnx" else path.name
        # A hidden entry is still being written, or not a model.
        if name.startswith("."):
            continue
        if unfit := _unfit(name):
            # It may not be a model and not readable, such as `lost+found`.
            with contextlib.suppress(OSError):
                for files in _models_at(path, name, lambda path, reason: None).values():
                    leave_out(_first(files), unfit)
            continue
        models = _models_at(path, name, leave_out)
        for taken in found.keys() & models.keys():
            leave_out(_first(found[taken]), f"{_first(models[taken])} is called {taken!r}, too, and is served")
        found |= models
    if not found:
        raise ArtifactError(
            f"{root}: no {MODEL}, and no folder of models: expected NAME/1/{MODEL}, runs, or NAME.onnx; "
            f"`enas export` writes them{''.join(passed_over)}"
        )
    return found


def _models_at(path: Path, name: str, pass_over: PassOver) -> dict[str, Files]:
    """The models at one path, under this name; empty if there are none."""
    if path.is_file():
        return {name: {"1": path}} if path.suffix == ".onnx" else {}
    if (path / MODEL).is_file():
        return _of_run(path, name)
    versions = _versions(path, pass_over) if path.is_dir() else {}
    return {name: versions} if versions else {}


def _of_run(run: Path, name: str) -> dict[str, Files]:
    models: dict[str, Files] = {name: {"1": run / MODEL}}
    if (run / SEQUENCE_MODEL).is_file():
        models[f"{name}-sequence"] = {"1": run / SEQUENCE_MODEL}
    return models


def _versions(folder: Path, pass_over: PassOver) -> Files:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _VERSION.fullmatch(path.name):
            if (path / MODEL).is_file():
                found[path.name] = path / MODEL
            continue
        # It may not be readable.
        with contextlib.suppress(OSError):
            if (path / MODEL).is_file():
                pass_over(path / MODEL, f"{path.name!r} is no version: 1, 2 and so on are")
    return found


def _unfit(name: str) -> str | None:
    """Why a model cannot have this name; None if it can."""
    if _NAME.fullmatch(name):
        return None
    return f"{name!r} cannot be the name of a model: letters, digits, '.', '_' and '-' can, 128 in all, no '-' first"


def _checked(name: str, path: Path) -> str:
    if unfit := _unfit(name):
        raise ArtifactError(f"{path}: {unfit}")
    return name


def _first(files: Files) -> Path:
    return next(iter(files.values()))
