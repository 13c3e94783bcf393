"""The models of a server: loaded, replaced and unloaded while it serves.

Clients give names of models, never paths: a name that was not found on disk is unknown, whatever it contains.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.models.artifact import ArtifactError, read_model
from runtime.serving.errors import RequestError, UnavailableError, UnknownError
from runtime.serving.metrics import Metrics
from runtime.serving.models.layout import Files, Found, find_models
from runtime.serving.models.served import ServedModel
from runtime.serving.settings import Settings

log = logging.getLogger(__name__)

Fingerprint = tuple[int, int, int, int] | None
"""A file's inode number, modification time, status change time and size: at least one changes when the file does. None
if there is no file."""


@dataclass
class _Entry:
    """A named model in any state."""

    ready: dict[str, ServedModel] = field(default_factory=dict)
    """Version -> the served model, the highest version last."""
    refused: dict[str, str] = field(default_factory=dict)
    """Version -> why the file on disk could not be loaded."""
    files: dict[str, dict[Path, Fingerprint]] = field(default_factory=dict)
    """Version -> its model file and external data files, with their fingerprints when they were last read."""
    is_wanted: bool = True
    """False once a client has unloaded it."""

    def latest(self) -> ServedModel | None:
        return next(reversed(self.ready.values()), None)

    def news(self, files: Files, *, retry: bool) -> Files:
        """The files that have changed since they were last read; with `retry` also all refused ones."""
        return {
            version: path
            for version, path in files.items()
            if (retry and version in self.refused) or not self._has_seen(version, path)
        }

    def _has_seen(self, version: str, path: Path) -> bool:
        seen = self.files.get(version, {})
        return path in seen and all(_fingerprint(part) == before for part, before in seen.items())


class Repository:
    """All models of a process."""

    def __init__(self, settings: Settings, metrics: Metrics, *, unloaded: Sequence[str] = ()) -> None:
        """Args: unloaded: names of models not to load until a client requests it."""
        self._settings = settings
        self._metrics = metrics
        self._entries: dict[str, _Entry] = {name: _Entry(is_wanted=False) for name in unloaded}
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._has_loaded = False
        self._required: set[str] = set()
        self._passed_over: Mapping[Path, str] = {}
        """Models that the last scan passed over -> why."""
        self._trouble: str | None = None
        """Why the last poll failed to find models; None if it found some."""

    @property
    def is_ready(self) -> bool:
        """Whether each model that was found at the start, and was not unloaded, has a version that is served."""
        required = [self._entries[name] for name in self._required & self._entries.keys()]
        return self._has_loaded and all(entry.ready for entry in required if entry.is_wanted)

    @property
    def names(self) -> list[str]:
        """Names of the models that are served."""
        return [name for name, entry in self._entries.items() if entry.ready]

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """A version of a model, the highest one by default. Raises: UnknownError, UnavailableError."""
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownError(f"Request for unknown model: '{name[:128]}' is not found")
        served = entry.latest() if version is None else entry.ready.get(version)
        if served is not None:
            return served
        if version is not None and version not in entry.refused and self._has_loaded:
            raise UnknownError(f"Request for unknown model: '{name}' version {version[:20]} is not found")
        raise UnavailableError(f"model '{name}' is not ready")

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served."""
        return list(self._entries[name].ready) if name in self._entries else []

    def served(self) -> list[ServedModel]:
        return [served for entry in self._entries.values() for served in entry.ready.values()]

    def index(self) -> list[dict[str, Any]]:
        """The rows of the protocol's repository index."""
        rows = []
        for name, entry in self._entries.items():
            for version in sorted({*entry.ready, *entry.refused}, key=int):
                state = "READY" if version in entry.ready else "UNAVAILABLE"
                rows.append(
                    {"name": name, "version": version, "state": state, "reason": entry.refused.get(version, "")}
                )
            if not entry.ready and not entry.refused:
                rows.append({"name": name, "state": "UNAVAILABLE", "reason": "" if entry.is_wanted else "unloaded"})
        return rows

    async def load_all(self) -> None:
        """Load all models. Raises: ArtifactError: none can be served, with the reasons."""
        async with self._lock:
            found = await self._find()
            for name in found:
                self._entries.setdefault(name, _Entry())
            self._required = set(found)
            for name, files in found.items():
                if self._entries[name].is_wanted:
                    await self._take(name, files, files)
        self._has_loaded = True
        if not self.names and (wanted := [entry for entry in self._entries.values() if entry.is_wanted]):
            raise ArtifactError("; ".join(reason for entry in wanted for reason in entry.refused.values()))

    async def load(self, name: str) -> None:
        """Read a model's files again and serve them; versions already served continue until then.

        Raises: UnknownError: there is no such model. RequestError: a file cannot be loaded, with the reason.
        """
        async with self._lock:
            try:
                found = await self._find()
            except ArtifactError:
                # The last model has been removed.
                found = {}
            if name not in found:
                raise UnknownError(f"failed to load '{name[:128]}', there is no such model in the repository")
            entry = self._entries.setdefault(name, _Entry())
            entry.is_wanted = True
            await self._take(name, found[name], found[name])
            if entry.refused:
                raise RequestError(f"load failed for model '{name}': {'; '.join(entry.refused.values())}")

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that it already has are answered. Raises: UnknownError."""
        async with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                raise UnknownError(f"failed to unload '{name[:128]}', there is no such model")
            entry.is_wanted = False
            self._drop(entry, list(entry.ready))
            entry.refused.clear()

    async def poll(self, *, retry: bool = False) -> list[str]:
        """Follow the files: load new and changed ones, unload removed ones.

        Args: retry: also retry refused files that have not changed. Files that could not be read are always retried.
        Returns: why files are not served; empty if all of them are.
        """
        try:
            found = await self._find()
        except ArtifactError as error:
            if self._trouble != str(error):
                log.warning("%s", error)
            self._trouble = str(error)
            return [str(error)]
        if self._trouble is not None:
            log.info("models are found again")
        self._trouble = None
        async with self._lock:
            for name, files in found.items():
                entry = self._entries.setdefault(name, _Entry())
                news = entry.news(files, retry=retry)
                if entry.is_wanted and (news or (entry.files.keys() | entry.refused.keys()) - files.keys()):
                    await self._take(name, files, news)
            for name in [name for name in self._entries if name not in found]:
                await self._take(name, {}, {})
                del self._entries[name]
            return [reason for entry in self._entries.values() for reason in entry.refused.values()]

    @property
    def is_any_current(self) -> bool:
        """Whether the last scan succeeded and at least one model serves all of its files."""
        return self._trouble is None and any(entry.ready and not entry.refused for entry in self._entries.values())

    async def close(self) -> None:
        """Finish all requests and close all models."""
        for entry in self._entries.values():
            self._drop(entry, list(entry.ready))
        await asyncio.gather(*self._closing)

    async def _find(self) -> Found:
        """Find the models to serve; logs those newly passed over since the last scan. Raises: ArtifactError."""
        passed_over: dict[Path, str] = {}
        found = await asyncio.to_thread(find_models, self._settings.models, pass_over=passed_over.__setitem__)
        for path, reason in passed_over.items():
            if self._passed_over.get(path) != reason:
                log.warning("passed over", extra={"path": str(path), "reason": reason})
        self._passed_over = passed_over
        return found

    async def _take(self, name: str, files: Files, news: Files) -> None:
        """Make a model serve these files. Args: news: the files that must be read."""
        entry = self._entries[name]
        kept = {version: seen for version, seen in entry.files.items() if version in files}
        entry.files = kept | {version: {path: _fingerprint(path)} for version, path in news.items()}
        entry.refused = {version: reason for version, reason in entry.refused.items() if version in files}
        for version, path in news.items():
            try:
                served = await asyncio.to_thread(self._open, entry, path, name, version)
            # Whatever error a file causes in onnxruntime, the versions already served must continue.
            except Exception as error:
                if entry.refused.get(version) != str(error):
                    log.error("refused", extra={"model": name, "version": version, "error": str(error)})
                entry.refused[version] = str(error)
                if isinstance(error, OSError):
                    del entry.files[version]  # it may be readable the next time
                continue
            entry.refused.pop(version, None)
            if served is not None:
                log.info("loaded", extra={"model": name, "version": version, "device": served.model.session.describe()})
                self._drop(entry, entry.ready.keys() & {version})
                entry.ready = dict(sorted({**entry.ready, version: served}.items(), key=lambda item: int(item[0])))
        self._drop(entry, entry.ready.keys() - files.keys())

    def _open(self, entry: _Entry, path: Path, name: str, version: str) -> ServedModel | None:
        """Open the file as a served model; None if the same content is already served."""
        file = read_model(path)
        entry.files[version] |= {part: _fingerprint(part) for part in file.named_parts.values()}
        present = entry.ready.get(version)
        if present is not None and present.model.sha256 == file.sha256:
            return None
        return ServedModel.open(file, name=name, version=version, settings=self._settings, metrics=self._metrics)

    def _drop(self, entry: _Entry, versions: Iterable[str]) -> None:
        """Stop serving versions; they finish the requests that they have."""
        for version in versions:
            task = asyncio.get_running_loop().create_task(entry.ready.pop(version).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _fingerprint(path: Path) -> Fingerprint:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
