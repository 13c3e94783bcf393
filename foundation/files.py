"""Files and folders that are whole or absent: written under a temporary name beside their own, then renamed; and their
hashes."""

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
    """Of a file's bytes, in hexadecimal digits. Raises: OSError: it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write; when the block ends well it takes the name `path`, else it is removed.

    Whatever stood at `path` stays untouched until the rename, through a full disk or a kill; then it is gone, or takes
    the name `keep`. A kill between these two renames leaves nothing at `path`, and the file before at `keep`.
    A link stays, and what it names is written, unless the link takes the name `keep`. A device, a pipe and an open
    file, as /dev/stdout, stay, too, and get the bytes.

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
                    sys.stdout.flush()  # what was printed before comes before
                    shutil.copyfileobj(written, stream)
        else:
            with _renamed(path if keep is not None else Path(os.path.realpath(path)), keep=keep) as temporary:
                yield temporary
    except OSError as error:
        # A write that fails, as on a full disk, does not say of which file.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _descriptor_of(path: Path) -> int | None:
    """The number of the open file that a path stands for, if it does."""
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
    """Yield a temporary folder to fill; when the block ends well it takes the name `path`, else it is removed.

    It is hidden, so that a server which looks meanwhile passes it over. What stood at `path` is replaced whole. A kill
    leaves that as it was or, between two renames, nothing; never a part. The hidden folders that a kill leaves are gone
    when the name is written the next time. A link stays, and what it names is replaced.

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
    """Remove the hidden folders of killed writers of `path`, then hold a lock that keeps others from removing ours.

    The lock is the folder around `path`: writers share it, and only who has it alone, with no writer about, removes.
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
                folder.rename(path)  # killed between two renames: this was the last one whole
            else:
                shutil.rmtree(folder, ignore_errors=True)


def strict_json(document: Any, *, indent: int | None = 2) -> str:
    """The JSON text of a document of measured values; infinities and NaN, which JSON does not have, become null."""
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
    """Write a UTF-8 text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
