"""The data sets known by name, where each comes from, and where its store lies.

A name belongs to an embedded data set, to one that can be fetched, or to one that a user imported; a path to an .h5
file can replace a name everywhere. Stores that are not embedded are in the data folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.claims import claimed
from datasets.sources import cifar, fashion_mnist, published_text
from datasets.sources.download import RemoteFile, download
from datasets.store import ImageStore, StoreError, TextStore, open_store
from foundation.document import unknown

_EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class Remote:
    """The published originals of a data set, and the function that builds a store from them."""

    files: tuple[RemoteFile, ...]
    build: Callable[[Path, Path], None]
    """Writes the store (second path) from the folder of originals (first path)."""


@dataclass(frozen=True)
class Entry:
    """A data set known by name."""

    name: str
    summary: str
    remote: Remote | None = None
    """None: the store ships with the package."""


_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("fashion-mnist-mini", "12,000 clothing images 28×28×1 in 10 classes"),
        Entry("shakespeare", "The complete works, 1.3 M words, vocabulary of 10,000"),
        Entry(
            "fashion-mnist",
            "70,000 clothing images 28×28×1 in 10 classes",
            Remote(fashion_mnist.FILES, fashion_mnist.build),
        ),
        Entry(
            "cifar10",
            "60,000 photographs 32×32×3 in 10 classes",
            Remote((cifar.CIFAR10.file,), cifar.CIFAR10.build),
        ),
        Entry(
            "cifar100",
            "60,000 photographs 32×32×3 in 100 classes",
            Remote((cifar.CIFAR100.file,), cifar.CIFAR100.build),
        ),
        Entry(
            "ptb",
            "Penn Treebank: 1.1 M words, vocabulary of 10,000",
            Remote(published_text.PTB.files, published_text.PTB.build),
        ),
        Entry(
            "wikitext-2",
            "Articles of Wikipedia: 2.6 M words, vocabulary of 33,278",
            Remote(published_text.WIKITEXT_2.files, published_text.WIKITEXT_2.build),
        ),
    )
}


def entries() -> tuple[Entry, ...]:
    """All data sets known by name, embedded ones first."""
    return tuple(_ENTRIES.values())


def imported() -> tuple[str, ...]:
    """Names of the user's own stores: those in the data folder that are not in the catalogue."""
    return tuple(sorted(path.stem for path in data_folder().glob("*.h5") if path.stem not in _ENTRIES))


def data_folder() -> Path:
    """The folder of stores that are not embedded: $ENAS_DATA, else $XDG_DATA_HOME/enas, else ~/.local/share/enas."""
    if folder := os.environ.get("ENAS_DATA"):
        return Path(folder)
    if folder := os.environ.get("XDG_DATA_HOME"):
        return Path(folder) / "enas"
    return Path.home() / ".local" / "share" / "enas"


def store_path(name: str) -> Path:
    """The path of the store called `name`, which may not exist."""
    entry = _ENTRIES.get(name)
    folder = _EMBEDDED if entry and entry.remote is None else data_folder()
    return folder / f"{name}.h5"


def locate(name_or_path: str) -> Path:
    """Returns the path of an existing store.

    Raises: StoreError: no data set has that name, it is not fetched yet, or there is no such file.
    """
    if _is_path(name_or_path):
        path = Path(name_or_path)
        if not path.is_file():
            raise StoreError(f"{path}: no such file")
        return path
    path = store_path(name_or_path)
    if path.is_file():
        return path
    if name_or_path in _ENTRIES:
        raise StoreError(f"data set '{name_or_path}' is not here yet: enas data fetch {name_or_path}")
    known = [*_ENTRIES, *imported(), "or a path to an .h5 file"]
    raise StoreError(unknown("data set", name_or_path, known))


def check_is_here(name_or_path: str, *, named_by: str) -> None:
    """Check that the data set of a run, a spec or a model exists; nobody has mistyped its name, so it must be restored.

    Args: named_by: the beginning of the message, before the name, such as "runs/pets was trained on".
    Raises: StoreError: there is no such store.
    """
    if _is_path(name_or_path):
        if not Path(name_or_path).is_file():
            raise StoreError(f"{named_by} {name_or_path}, which does not exist")
    elif name_or_path not in _ENTRIES and not store_path(name_or_path).is_file():
        raise StoreError(
            f"{named_by} {name_or_path}, which is not in {data_folder()}; import it again, or set ENAS_DATA to the "
            "folder that holds it"
        )


def _is_path(name_or_path: str) -> bool:
    return name_or_path.endswith(".h5") or "/" in name_or_path or os.sep in name_or_path


def load(name_or_path: str) -> ImageStore | TextStore:
    """Open the store of that name or path.

    Raises: StoreError: as `locate`, or the store is damaged.
    """
    return open_store(locate(name_or_path))


def load_images(name_or_path: str) -> ImageStore:
    """Returns the image store with that name or path. Raises: StoreError: as `load`, or it contains text."""
    store = load(name_or_path)
    if not isinstance(store, ImageStore):
        raise StoreError(f"{name_or_path} holds text, but images are needed")
    return store


def load_text(name_or_path: str) -> TextStore:
    """Returns the text store with that name or path. Raises: StoreError: as `load`, or it contains images."""
    store = load(name_or_path)
    if not isinstance(store, TextStore):
        raise StoreError(f"{name_or_path} holds images, but text is needed")
    return store


def fetch(name: str, *, originals: Path | None = None, out: Path | None = None, force: bool = False) -> Path:
    """Build the store of a data set known by name, from its published originals.

    Args: originals: the folder of the originals; by default they are downloaded, and removed once the store is
        complete. out: the store's path; by default in the data folder. force: replace an existing file.
    Returns: the store's path.
    Raises: StoreError: the name is unknown, the set is embedded or exists already, the network fails, or the originals
        are damaged.
    """
    fetchable = [entry.name for entry in entries() if entry.remote]
    entry = _ENTRIES.get(name)
    if entry is None:
        raise StoreError(unknown("data set", name, fetchable))
    if entry.remote is None:
        raise StoreError(f"data set '{name}' ships with the package: there is nothing to fetch")
    out = out or store_path(name)
    with claimed(out, force=force):
        if originals is not None:
            entry.remote.build(originals, out)
            return out
        downloads = data_folder() / "downloads" / name
        received = [download(file, downloads) for file in entry.remote.files]
        entry.remote.build(downloads, out)
        for file in received:
            file.unlink()
        with suppress(OSError):  # it may contain files that are not ours
            downloads.rmdir()
    return out


def is_known(name: str) -> bool:
    """Whether the name belongs to a data set of the catalogue, so that a user's own data set cannot have it."""
    return name in _ENTRIES
