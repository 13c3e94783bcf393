"""Writes files and folders atomically, under a temporary name in the same folder and then renamed; hashes files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foundation.locks import share_lock, try_lock


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as hexadecimal digits. Raises: OSError: it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write, which is renamed to `path` if the block succeeds, and removed if it raises.

    A file at `path` stays unchanged until the rename, even if the disk is full or the process is killed. Then it is
    replaced, or renamed to `keep`. A kill between these two renames leaves nothing at `path`, and the old file at
    `keep`. If `path` is a link, its target is replaced; with `keep`, the link itself is renamed. A device, a pipe and
    an open file, such as /dev/stdout, are not replaced: the bytes are written to them.

    Raises: OSError: the folder cannot be made or written.
    """
    try:
        descriptor = _descriptor_of(path)
        if descriptor is not None or (path.exists() and not path.is_file()):
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder, path.name)
                with (
                    open(Path(folder, path.name), "rb") as written,
                    open(path if descriptor is None else os.dup(descriptor), "wb") as stream,
                ):
                    sys.stdout.flush()  # earlier output must precede the file's bytes
                    shutil.copyfileobj(written, stream)
        else:
            with _renamed(path if keep is not None else Path(os.path.realpath(path)), keep=keep) as temporary:
                yield temporary
    except OSError as error:
        # The error of a failed write, as on a full disk, does not name the file.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _descriptor_of(path: Path) -> int | None:
    """Returns the file descriptor that a path such as /dev/stdout stands for; None for an ordinary path."""
    name = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}.get(str(path), str(path))
    match = re.fullmatch(r"/(?:dev|proc/self)/fd/([0-9]+)", name)
    return int(match[1]) if match else None


@contextmanager
def _renamed(path: Path, *, keep: Path | None) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        # The bytes must be on disk before the name is, or a power cut leaves an empty file under the final name.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill, which is renamed to `path` if the block succeeds, and removed if it raises.

    The temporary folder is hidden, so that a server that scans meanwhile skips it. A folder at `path` is replaced as a
    whole. A kill leaves it unchanged or, between two renames, absent; never partial. The next write to `path` removes
    the hidden folders of a killed process. If `path` is a link, its target is replaced.

    Raises: OSError: the folder cannot be made or written.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}") for end in ("tmp", "old"))
    with _without_leftovers(path):
        try:
            unfinished.mkdir()
            yield unfinished
            for file in unfinished.rglob("*"):
                if file.is_file():
                    with open(file, "rb") as written:
                        os.fsync(written.fileno())
            if path.exists():
                path.rename(replaced)
            unfinished.rename(path)
        finally:
            if replaced.exists() and not path.exists():
                replaced.rename(path)
            for folder in (unfinished, replaced):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_leftovers(path: Path) -> Iterator[None]:
    """Removes the hidden folders of killed writers of `path`, then holds a lock that keeps others from removing ours.

    The lock is on the parent folder of `path`. Writers share it; only a process that gets it exclusively, while nobody
    else writes, removes folders.
    """
    if sys.platform == "win32":
        yield
        return
    around = os.open(path.parent, os.O_RDONLY)
    try:
        if try_lock(around) == "held":
            with suppress(OSError):
                _remove_leftovers(path)
        share_lock(around)
        yield
    finally:
        os.close(around)


def _remove_leftovers(path: Path) -> None:
    of_path = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(tmp|old)")
    for folder in path.parent.iterdir():
        if found := of_path.fullmatch(folder.name):
            if found[1] == "old" and not path.exists():
                folder.rename(path)  # killed between two renames: this is the last complete folder
            else:
                shutil.rmtree(folder, ignore_errors=True)


def strict_json(document: Any, *, indent: int | None = 2) -> str:
    """Returns a document of measured values as JSON; infinities and NaN, which JSON does not have, become null."""
    return json.dumps(_finite(document), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(document: Any) -> Any:
    if isinstance(document, float) and not math.isfinite(document):
        return None
    if isinstance(document, Mapping):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return document


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
