"""The files of onnxruntime that a browser needs: one version, from npm or from the user's package, each checked.

Without a registry: `npm pack onnxruntime-web@VERSION` on another machine writes an archive, which can be copied.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
_PATIENCE_S = 600


class RuntimeFilesError(ValueError):
    """The files of onnxruntime-web are not available, or are not those that were tested."""


@dataclass(frozen=True)
class RuntimeFile:
    """A file of the package."""

    path: PurePosixPath
    """In the package."""
    name: str
    """Beside the page: `.js`, since not every web server knows what `.mjs` is."""
    sha256: str


FILES = (
    RuntimeFile(
        PurePosixPath("dist/ort.wasm.bundle.min.mjs"),
        "ort.js",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    RuntimeFile(
        PurePosixPath("dist/ort-wasm-simd-threaded.wasm"),
        "ort.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
)


def runtime_files(source: Path | None) -> dict[str, bytes]:
    """Name beside the page -> content.

    Args: source: the package's folder or archive; None: npm fetches it.
    Raises: RuntimeFilesError: npm is absent or fails, the archive is damaged, or a file is missing or has another
            SHA-256.
    """
    if source is None:
        with tempfile.TemporaryDirectory() as folder:
            return _checked(_archive_from_npm(Path(folder)))
    return _checked(source)


def _checked(source: Path) -> dict[str, bytes]:
    read = _from_folder(source) if source.is_dir() else _from_archive(source)
    files = {}
    for file in FILES:
        try:
            data = read(file.path)
        except (FileNotFoundError, KeyError):
            raise RuntimeFilesError(f"{source}: no {file.path}; expected the package {PACKAGE}") from None
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
            raise RuntimeFilesError(f"{source}: cut short or damaged; expected the package {PACKAGE}") from None
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise RuntimeFilesError(f"{source}: {file.path} is not that of {PACKAGE}: its SHA-256 is another")
        files[file.name] = data
    return files


def _from_folder(folder: Path) -> Callable[[PurePosixPath], bytes]:
    return lambda path: (folder / path).read_bytes()


def _from_archive(archive: Path) -> Callable[[PurePosixPath], bytes]:
    """npm's archives hold all files below `package/`."""

    def read(path: PurePosixPath) -> bytes:
        with tarfile.open(archive) as files:
            file = files.extractfile(f"package/{path}")
            if file is None:
                raise KeyError(path)
            return file.read()

    try:
        with tarfile.open(archive):
            return read
    except tarfile.TarError:
        raise RuntimeFilesError(f"{archive}: neither a folder nor an archive of {PACKAGE}") from None


def _archive_from_npm(folder: Path) -> Path:
    """The package's archive, from whichever registry the user's npm is set to, or from npm's own cache."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeFilesError(
            f"--web takes onnxruntime-web from npm, which is not installed; `npm pack {PACKAGE}` on another machine "
            "writes an archive for --web-runtime"
        )
    line = [npm, "pack", PACKAGE, "--silent", "--prefer-offline", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_PATIENCE_S, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeFilesError(f"npm did not fetch {PACKAGE} in {_PATIENCE_S // 60} minutes") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeFilesError(f"npm cannot fetch {PACKAGE}: {told[-1] if told else 'it does not say why'}")
    return archives[0]
