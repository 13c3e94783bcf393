"""CIFAR-10 and CIFAR-100 from their python archives, packed or unpacked.

The archives contain pickles of Python 2. The unpickler that reads them can only make arrays, so a tampered archive
cannot run code.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasets.sources.download import RemoteFile
from datasets.splits import stratified_split
from datasets.store import StoreError
from datasets.store_writer import write_image_store

_ADDRESS = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets: the name of its archive, and the names and keys of the members."""

    name: str
    file: RemoteFile
    folder: str
    """Folder of the members, both inside the archive and unpacked."""
    train_files: tuple[str, ...]
    test_file: str
    meta_file: str
    labels_key: str
    classes_key: str

    def build(self, folder: Path, path: Path, *, seed: int = 0) -> None:
        """Write the store at `path` from the archive in `folder`, or from its unpacked members; a tenth of train, by
        class, becomes valid.

        Raises: StoreError: a file is missing, damaged, or holds something other than arrays.
        """
        members = self._read_members(folder)
        classes = _text_list(members[self.meta_file], self.classes_key, self.meta_file)
        train = [self._images(members[name], name) for name in self.train_files]
        images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
        splits = stratified_split(labels, fractions={"train": 0.9, "valid": 0.1}, seed=seed)
        write_image_store(
            path,
            name=self.name,
            splits={split: (images[rows], labels[rows]) for split, rows in splits.items()}
            | {"test": self._images(members[self.test_file], self.test_file)},
            classes=classes,
            source=f"{self.name}, https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009)",
            licence="None stated by its authors; free to download for research",
        )

    def _read_members(self, folder: Path) -> dict[str, dict[str, Any]]:
        names = (*self.train_files, self.test_file, self.meta_file)
        for unpacked in (folder / self.folder, folder):
            if all((unpacked / name).is_file() for name in names):
                return {name: _unpickle((unpacked / name).read_bytes(), str(unpacked / name)) for name in names}
        archive = folder / self.file.name
        if not archive.is_file():
            raise StoreError(f"{folder}: holds neither {self.file.name} nor a folder {self.folder} with all its files")
        try:
            with tarfile.open(archive) as tar:
                return {name: _unpickle(_member(tar, f"{self.folder}/{name}"), f"{archive}: {name}") for name in names}
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise StoreError(f"{archive}: damaged ({error}); download it again") from error
        except KeyError as error:
            raise StoreError(f"{archive}: {error.args[0]}; it is not the published archive") from error

    def _images(self, batch: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, 32, 32, 3] and labels int64 [N] of one member."""
        pixels, labels = batch.get("data"), batch.get(self.labels_key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * 32 * 32,):
            raise StoreError(f"{self.name}: {name} has no 'data' of uint8 [N, 3072]")
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise StoreError(f"{self.name}: {name} has no '{self.labels_key}' of {len(pixels)} numbers")
        # Planes of red, green, blue become pixels.
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


CIFAR10 = Cifar(
    name="cifar10",
    file=RemoteFile(
        f"{_ADDRESS}/cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        num_bytes=170_498_071,
    ),
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_file="test_batch",
    meta_file="batches.meta",
    labels_key="labels",
    classes_key="label_names",
)
CIFAR100 = Cifar(
    name="cifar100",
    file=RemoteFile(
        f"{_ADDRESS}/cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        num_bytes=169_001_437,
    ),
    folder="cifar-100-python",
    train_files=("train",),
    test_file="test",
    meta_file="meta",
    labels_key="fine_labels",
    classes_key="fine_label_names",
)


class _Array:
    """Replaces an array during unpickling, so that numpy's own reconstruction never reads untrusted bytes."""

    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, data = state
        if dtype.code != "u1":
            raise pickle.UnpicklingError(f"an array of type {dtype.code!r}, expected 'u1'")
        data = data.encode("latin1") if isinstance(data, str) else data  # a string of Python 2 is bytes
        self.values = np.frombuffer(data, np.uint8).reshape(shape)


class _Dtype:
    """Replaces a dtype during unpickling: arrays of single bytes need only its code."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Restores bytes, which Python 3 writes as text into a pickle of protocol 2."""
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Makes numbers, strings, lists, dicts and byte arrays, and refuses to look up anything else."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return self._ALLOWED[module, name]


def _unpickle(data: bytes, where: str) -> dict[str, Any]:
    """The dict of a pickle, with numpy arrays of bytes among its values."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # untrusted bytes can make pickle raise almost any exception
        raise StoreError(f"{where}: refused: {error}; it is not the published file") from error
    if not isinstance(batch, dict):
        raise StoreError(f"{where}: holds a {type(batch).__name__}, expected a dict; it is not the published file")
    return {key: value.values if isinstance(value, _Array) else value for key, value in batch.items()}


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"member {name} is not a file")
    return file.read()


def _text_list(batch: dict[str, Any], key: str, name: str) -> list[str]:
    texts = batch.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise StoreError(f"{name}: has no '{key}' of names")
    return texts
