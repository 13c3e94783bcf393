"""One stage of a run on disk: `runs/<name>/search/` and `runs/<name>/retrain/`.

A stage is unfinished until its `summary.json` exists; `config.toml` contains everything needed to repeat it.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
import time
import tomllib
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import IO, Any, TypeVar

import tomli_w

from foundation.document import DocumentError, Problems, read_dataclass, write_dataclass
from foundation.files import strict_json, write_text
from foundation.locks import try_lock
from foundation.text import is_utf8, printable
from searcher.running.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from searcher.running.distributed import ALONE, World
from searcher.running.metrics import MetricsLog

Config = TypeVar("Config")
LOG = "log.txt"
"""The output of a job that trains in its own process."""
START_ANEW = "start anew with --force"
"""Advice for a stage whose files are damaged."""
_LOCK = ".lock"
# A longer wait for another process is reported.
_SILENT_WAIT_S = 2.0
_CHECKPOINT = "checkpoint.pt"
_PREVIOUS = "checkpoint-previous.pt"
_FILES = (
    "summary.json",
    "metrics.jsonl",
    _CHECKPOINT,
    _PREVIOUS,
    "best.pt",
    "spec.json",
    "threads.json",
    LOG,
    "config.toml",
)
"""The files of a run in the order of deletion: without the first it is unfinished, and the last marks it as a run."""
_RECORDED_PACKAGES = ("torch", "numpy", "h5py", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")


class RunError(ValueError):
    """A run directory is not in the state that a command needs."""


@dataclass(frozen=True)
class Opening:
    """How a stage is opened. If its folder exists, one of the flags must be set."""

    resume: bool = False
    """Resume the stage, if its folder exists."""
    force: bool = False
    """Delete an earlier run's files from its folder."""
    again: str = ""
    """The command that the user typed, for advice."""

    def with_settings_of(self, config_file: Path | None) -> Opening:
        """The same, with advice that starts anew as a run was begun, whose settings a resumed command has taken.

        Args: config_file: where they are; None if the command took none.
        """
        if config_file is None:
            return self
        return replace(self, again=f"{self.again} --config {shlex.quote(str(config_file))}")


class RunFolder:
    """A stage's files. Made by `open`; `finished` reports whether the stage is complete.

    In a world of several processes, only rank 0 reads and writes files, and all ranks get what it read.
    """

    def __init__(self, path: Path, *, world: World = ALONE, cure: str = START_ANEW) -> None:
        self.path = path
        self.world = world
        self._cure = cure
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self._lock: IO[bytes] | None = None
        self._metrics: MetricsLog | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        config: Any,
        opening: Opening = Opening(),
        *,
        world: World = ALONE,
        wait_s: float = 0.0,
        cure: str = START_ANEW,
    ) -> RunFolder:
        """Begins or resumes a stage; no other process can open it until `close`, or until this process ends.

        Args: config: the stage's dataclass. wait_s: for another process that is about to end. cure: advice for a
        stage whose checkpoints or summary are damaged.
        Raises: RunError: the folder exists and the opening has neither flag, or it was made with another configuration,
        or it is in use, or it holds other things than a run. DocumentError: its config.toml is damaged.
        """
        folder = cls(path, world=world, cure=cure)
        try:
            world.share(lambda: folder._begin(config, opening, wait_s=wait_s))
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def discard(cls, path: Path) -> None:
        """Delete what a stage has left in a folder, if one has. Raises: RunError: the folder is in use."""
        folder = cls(path)
        if folder.begun:
            with closing(lock_file(path / _LOCK, wait_s=_SILENT_WAIT_S)):  # for another rank that deletes it, too
                folder._delete()

    def close(self) -> None:
        """Let other processes open the folder."""
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            self._lock.close()

    def _begin(self, config: Any, opening: Opening, *, wait_s: float) -> None:
        path = self.path
        if not is_utf8(str(path)):
            raise RunError(f"{printable(str(path))}: a name that is not UTF-8; choose another run directory")
        present = {entry.name for entry in path.iterdir()} if path.exists() else set()
        leftovers = {name for name in present if name.startswith(".") and name.endswith(".tmp")}
        if present - leftovers - {_LOCK} and not self.config_path.exists():
            raise RunError(f"{path} holds other files than a run's (no config.toml): choose another run directory")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_file(path / _LOCK, wait_s=wait_s)
        for name in leftovers:  # of a process that was killed while it wrote
            (path / name).unlink(missing_ok=True)
        if opening.force:
            self._delete()
        if self.config_path.exists():
            differences = _differences(read_toml(self.config_path), write_dataclass(config))
            if differences:
                told = "; ".join(list(differences.values())[:3])
                more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
                # Only the data, or only the spec, changed under the same name: no option brings the old one back.
                is_of_others = len(differences) == 1 and next(iter(differences)).endswith("sha256")
                cure = "" if is_of_others else "go on with the options that it was begun with and --resume, or "
                raise RunError(
                    f"{path} was made with another configuration ({told}{more}): "
                    f"{cure}start anew with `{opening.again} --force`"
                )
            if not opening.resume:
                state = "finished" if self.summary_path.exists() else "unfinished"
                raise RunError(
                    f"{path} already holds {_article(state)} {state} run: "
                    f"`{opening.again} --resume` goes on with it, `{opening.again} --force` starts anew"
                )
        else:
            write_text(self.config_path, tomli_w.dumps(write_dataclass(config)))

    @property
    def config_path(self) -> Path:
        return self.path / "config.toml"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / _CHECKPOINT

    @property
    def previous_path(self) -> Path:
        """The checkpoint before the last one."""
        return self.path / _PREVIOUS

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def begun(self) -> bool:
        return self.config_path.exists()

    @property
    def finished(self) -> bool:
        return self.world.share(self.summary_path.exists)

    @property
    def seconds(self) -> float:
        """Time spent on the stage since `restore`, plus the time of earlier processes up to their last checkpoint."""
        return self._seconds_before + time.perf_counter() - self._started

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint, if there is one, with the metrics cut back to it. Call before `append` and `save`.

        If the last checkpoint is damaged, the one before it is used and a warning is printed: a run that is restarted
        automatically, at night or on a cluster, then loses only minutes of work.
        Raises: CheckpointError: neither can be read, or they are not this version's.
        """
        return self.world.share(self._restore)

    def _restore(self) -> dict[str, Any] | None:
        self._started = time.perf_counter()
        state = self._last_whole_checkpoint()
        if state is None:
            self._metrics = MetricsLog(self.path)
            return None
        self._seconds_before = state["seconds"]
        self._metrics = MetricsLog(self.path, position=state["metrics_position"], next_step=state["epoch"] + 1)
        return state

    def start_over(self) -> None:
        """Deletes a stage's results, but not its configuration. Call between `restore` and `finish`."""
        if self.world.leads:
            assert self._metrics is not None
            self._metrics.close()
            for name in ("metrics.jsonl", _CHECKPOINT, _PREVIOUS, "best.pt"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            self._metrics = MetricsLog(self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add an epoch's record to the metrics."""
        if self.world.leads:
            assert self._metrics is not None
            self._metrics.append(record, step=record["epoch"])

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint with the position in the metrics that belongs to it; keeps the last two checkpoints."""
        if self.world.leads:
            assert self._metrics is not None
            whole = {**state, "metrics_position": self._metrics.position, "seconds": self.seconds}
            save_checkpoint(self.checkpoint_path, whole, keep=self.previous_path)

    def write(self, name: str, state: Mapping[str, Any]) -> None:
        """Write tensors and plain values into a file of their own."""
        if self.world.leads:
            save_checkpoint(self.path / name, state)

    def read(self, name: str, *, required: Collection[str]) -> dict[str, Any]:
        """What `write` wrote. Raises: CheckpointError: there is none, it is damaged, or it lacks a required key."""
        return self.world.share(lambda: load_checkpoint(self.path / name, required=required))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, which marks the stage as finished."""
        if not self.world.leads:
            return
        if self._metrics is not None:
            self._metrics.close()
        write_text(self.summary_path, strict_json(summary) + "\n")

    def summary(self) -> dict[str, Any]:
        """What `finish` wrote. Raises: RunError: it is not what a run writes."""
        return self.world.share(self._summary)

    def _summary(self) -> dict[str, Any]:
        try:
            summary: dict[str, Any] = json.loads(self.summary_path.read_text(encoding="utf-8"))
        except ValueError:
            raise RunError(f"{self.summary_path}: not valid JSON; {self._cure}") from None
        return summary

    def _last_whole_checkpoint(self) -> dict[str, Any] | None:
        required = ("metrics_position", "seconds", "epoch")
        if not self.checkpoint_path.exists() and not self.previous_path.exists():
            return None
        try:
            return load_checkpoint(self.checkpoint_path, required=required)
        except CheckpointError as error:
            try:
                state = load_checkpoint(self.previous_path, required=required)
            except CheckpointError:
                raise CheckpointError(f"{error}; {self._cure}") from None
            print(f"{error}: going on with the checkpoint before it", file=sys.stderr)
            # The intact checkpoint replaces the damaged one; otherwise the next `save` would lose the intact one.
            os.replace(self.previous_path, self.checkpoint_path)
            return state

    def _delete(self) -> None:
        """Remove what a run writes, and nothing else."""
        *others, config = _FILES
        for name in others:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        (self.path / config).unlink(missing_ok=True)


def read_config(path: Path, cls: type[Config], *, types: Mapping[str, Any] | None = None) -> Config:
    """A stage's configuration, or one a person has written.

    Raises: DocumentError: not TOML, an unknown or missing key, or a value out of range.
    """
    problems = Problems(str(path))
    upgraded = getattr(cls, "upgraded", dict)  # a class may know how earlier versions wrote it
    config = read_dataclass(cls, upgraded(read_toml(path)), place="", problems=problems, types=types)
    problems.raise_if_any()
    assert config is not None
    return config


def versions() -> dict[str, str]:
    """Python's and the packages' versions, for a run's records."""
    found = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """A file's table. Raises: DocumentError: there is none, or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DocumentError(str(path), ["no such file"]) from None
    except ValueError as error:  # also of a number with too many digits, and of bytes that are no text
        raise DocumentError(str(path), [f"not valid TOML: {error}"]) from None


def lock_file(path: Path, *, wait_s: float = 0.0) -> IO[bytes]:
    """The file, made if it is not there, open and locked until it is closed or the process ends.

    If the file system has no locks, the user must avoid two processes in one run directory.
    Args: wait_s: how long to wait for another process that holds the file. Raises: RunError: it still holds it then.
    """
    file = open(path, "ab")  # noqa: SIM115 - stays open as long as the run
    began = time.monotonic()
    is_told = False
    while (state := try_lock(file)) == "in use":
        waited_s = time.monotonic() - began
        if waited_s >= wait_s:
            file.close()
            raise RunError(f"{path.parent} is in use by another process")
        if waited_s >= _SILENT_WAIT_S and not is_told:
            is_told = True
            print(f"waiting for another process that uses {path.parent}", file=sys.stderr, flush=True)
        time.sleep(0.1)
    if state == "unavailable":
        print(f"{path.parent}: no locks here; use it in one process at a time", file=sys.stderr, flush=True)
    return file


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Returns a text for every value that differs, by dotted key: `seed was 0, now 1`."""
    found: dict[str, str] = {}
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found |= _differences(before, now, f"{place}{key}.")
        elif before != now:
            found[f"{place}{key}"] = f"{place}{key} was {before!r}, now {now!r}"
    return found


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
