"""The contents of a folder or a ZIP archive as a tree of names; no file is read here.

Hidden names are skipped, links in folders are followed, and whatever cannot be opened is reported as a problem.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from foundation.limits import MAX_FILE_BYTES
from foundation.pictures import PictureError, read_file
from foundation.text import printable

_NOT_OURS = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""Names that operating systems create in folders, besides those that begin with a dot."""
_IS_MARKED_UTF_8 = 0x800
"""A bit in the flags of a ZIP member: its name is UTF-8."""


@dataclass(frozen=True)
class File:
    """A file that may be a picture."""

    path: str
    """Its location, as shown to the user."""
    read: Callable[[], bytes]
    """Raises: PictureError: it cannot be read."""


@dataclass
class Folder:
    """A folder with its subfolders and files, each in the order of their names."""

    path: str
    """Its location, as shown to the user."""
    folders: dict[str, Folder] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def all_files(self) -> Iterator[File]:
        """Yields the files of this folder, then all files of its subfolders."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.all_files()

    def find(self, name: str) -> File | None:
        """Returns the file with a name that may contain folders, such as `train/0.png`; None if there is none."""
        parts = parts_of(name)
        folder: Folder | None = self
        for part in parts[:-1]:
            folder = folder.folders.get(part) if folder else None
        return folder.files.get(parts[-1]) if folder and parts else None


Problem: TypeAlias = tuple[str, str]
"""The place, and what is wrong there."""


class TreeError(ValueError):
    """There is no folder or archive that can be read."""


def read_tree(source: Path, problems: list[Problem]) -> Folder:
    """Returns the tree of a folder or a ZIP archive. problems: receives every entry that is left out as unreadable.

    Raises: TreeError: there is no such folder, or it cannot be read, or the file is not a ZIP archive.
    """
    if source.is_dir():
        try:
            os.scandir(source).close()
        except OSError as error:
            raise TreeError(f"{printable(str(source))}: {error.strerror}") from error
        return _folder(source, problems, above={})
    if not source.exists():
        raise TreeError(f"{printable(str(source))}: no such folder")
    try:
        return _archive(source, problems)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise TreeError(f"{printable(str(source))}: not a ZIP archive that can be read: {error}") from error


def parts_of(path: str) -> list[str]:
    r"""Returns the parts of a path as written in tables and archives: `./train\0.png` gives `train`, `0.png`."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def is_hidden(name: str) -> bool:
    """Whether users do not see files of that name in a folder: `.ipynb_checkpoints`, `.DS_Store`, `Thumbs.db`."""
    return name.startswith(".") or name in _NOT_OURS


def _folder(path: Path, problems: list[Problem], *, above: dict[tuple[int, int], Path]) -> Folder:
    """Returns a folder's tree. above: its parent folders by device and inode, to detect a link back to one of them."""
    folder = Folder(str(path))
    try:
        status = path.stat()
        entries = sorted(entry.name for entry in os.scandir(path) if not is_hidden(entry.name))
    except OSError as error:
        problems.append((str(path), f"a folder that cannot be read: {error.strerror or error}"))
        return folder
    key = (status.st_dev, status.st_ino)
    if key in above:
        problems.append((str(path), f"a link back to {above[key]}, which it lies in: not followed"))
        return folder
    for name in entries:
        entry = path / name
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            is_broken = entry.is_symlink() and isinstance(error, FileNotFoundError)
            reason = (
                f"a link to {os.readlink(entry)}, which is not there" if is_broken else str(error.strerror or error)
            )
            problems.append((str(entry), reason))
            continue
        if stat.S_ISDIR(mode):
            folder.folders[name] = _folder(entry, problems, above={**above, key: path})
        elif stat.S_ISREG(mode):
            folder.files[name] = File(str(entry), partial(read_file, entry))
        else:
            problems.append((str(entry), "neither a file nor a folder"))
    return folder


# --- ZIP archives -----------------------------------------------------------------------------------------------------


def _archive(source: Path, problems: list[Problem]) -> Folder:
    """Returns the tree of an archive. Its files are read without unpacking, so no name can lead outside."""
    archive = zipfile.ZipFile(source)
    root = Folder(str(source))
    for info in sorted(archive.infolist(), key=_name_of):
        shown = f"{source}/{_name_of(info)}"
        parts = parts_of(_name_of(info))
        if info.is_dir() or not parts or any(is_hidden(part) for part in parts if part != ".."):
            continue
        if ".." in parts:
            problems.append((shown, "a name that leads out of the archive"))
        elif stat.S_ISLNK(info.external_attr >> 16):
            problems.append((shown, "a link, which is not followed in an archive"))
        else:
            folder = root
            for part in parts[:-1]:
                folder = folder.folders.setdefault(part, Folder(f"{folder.path}/{part}"))
            folder.files[parts[-1]] = File(shown, partial(_read_member, archive, info))
    return root


def _name_of(info: zipfile.ZipInfo) -> str:
    """A member's name. Archives that do not mark names as UTF-8 may hold UTF-8 all the same, as those of macOS do."""
    if info.flag_bits & _IS_MARKED_UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()  # zipfile decodes what is not marked by code page 437
    except UnicodeError:
        return info.filename


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & 1:
        raise PictureError("encrypted: unpack the archive first")
    if info.file_size > MAX_FILE_BYTES:
        raise PictureError(f"a file of more than {MAX_FILE_BYTES >> 20} MB is not taken for a picture")
    try:
        return archive.read(info)
    except Exception as error:  # zlib, lzma and zipfile raise errors of many classes
        raise PictureError(f"damaged in the archive: {error}") from error
