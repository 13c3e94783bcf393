"""Downloads one file into a folder: resumes an interrupted download, shows progress, and checks the digest.

Knows nothing of data sets. An incomplete file is called `<name>.part`, and is renamed once the digest is right.
"""

from __future__ import annotations

import http.client
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from tqdm import tqdm

from datasets.store import StoreError
from foundation.files import sha256_of

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 30


@dataclass(frozen=True)
class RemoteFile:
    """A file that a third party publishes."""

    url: str
    sha256: str
    num_bytes: int
    """Length as published: shown before a download starts."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def download(file: RemoteFile, folder: Path) -> Path:
    """Download `file` into `folder`, unless it is there with the right digest.

    Returns: its path.
    Raises: StoreError: the address cannot be reached, or the received file is not the published one.
    """
    path = folder / file.name
    if path.is_file() and sha256_of(path) == file.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    try:
        _receive(file, part)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the server's file: the next try starts from zero
        raise StoreError(f"{file.url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise StoreError(
            f"{file.url}: cannot be reached or broke off ({reason}); run the same command again when the network is "
            "back, it goes on where it stopped, or give it the files with --from FOLDER"
        ) from error
    found = sha256_of(part)
    if found != file.sha256:
        part.unlink()
        raise StoreError(
            f"{file.url}: what came is not the published file (sha256 {found}, expected {file.sha256}); "
            "it was removed: run the same command again"
        )
    part.replace(path)
    return path


def _receive(file: RemoteFile, part: Path) -> None:
    """Append the missing bytes to `part`; a server that does not support ranges sends the whole file again."""
    have = part.stat().st_size if part.exists() else 0
    if have >= file.num_bytes:  # nothing left to request: complete, or wrong, which the digest shows
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if not sys.stderr.isatty():
            print(f"{file.name}: {have if resumed else 0:,} of {file.num_bytes:,} bytes are here", file=sys.stderr)
        progress = tqdm(
            desc=file.name,
            total=file.num_bytes,
            initial=have if resumed else 0,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        )
        with part.open("ab" if resumed else "wb") as target, progress:
            while block := response.read(_BLOCK_BYTES):
                target.write(block)
                progress.update(len(block))
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
