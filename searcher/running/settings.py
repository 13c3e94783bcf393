"""Makes a run's configuration from a preset: a file's values replace the preset's, and `--set` replaces both.

Knows dataclasses and their tables, and nothing of what is set.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from foundation.document import ConfigError, Problems, read_dataclass, value_of_text, without_none, write_dataclass
from searcher.running.run_folder import read_toml

Config = TypeVar("Config")

# Keys that a configuration records but --set cannot change, and how each gets its value.
_ELSEWHERE = {
    "space": "--space says it",
    "preset": "--preset says it",
    "dataset": "--dataset says it",
    "dataset_sha256": "it is filled in",
    "spec_sha256": "it is filled in",
    "model": "--lstm and --no-lstm say it",
    "latency.target_ms": "--latency says it",
    "latency.batch": "--latency-batch says it",
    "latency.threads": "--latency-threads says it",
    "latency.table_sha256": "it is filled in",
}


@dataclass(frozen=True)
class Settings:
    """A user's changes to a preset: a table from a file, which may be partial, and single settings."""

    file: Path | None
    table: Mapping[str, Any]
    assignments: tuple[str, ...]
    """Each is `key=value`; a dotted key is within a table, as in `sgd.learning_rate=0.05`."""

    @classmethod
    def read(cls, file: Path | None, assignments: Sequence[str]) -> Settings:
        """Reads a user's changes.

        Raises: DocumentError: the file is missing, or is not TOML. ConfigError: an assignment is not `key=value`.
        """
        for assignment in assignments:
            if not assignment.partition("=")[0].strip() or "=" not in assignment:
                raise ConfigError(f"--set {assignment}: expected KEY=VALUE, as sgd.learning_rate=0.05")
        return cls(file, {} if file is None else read_toml(file), tuple(assignments))

    def name(self, key: str, given: str | None) -> str | None:
        """Returns the space or preset of the option --<key>, else the file's. Raises: ConfigError: the two differ."""
        found = self.text(key)
        if None not in (given, found) and given != found:
            raise ConfigError(f"{self.file} is for the {key} {found}, but --{key} is {given}")
        return given or found

    def text(self, key: str) -> str | None:
        """Returns the file's value of a key if it is a text, else None."""
        found = self.table.get(key)
        return found if isinstance(found, str) else None

    @property
    def is_of_a_run(self) -> bool:
        """Whether the file is a run's own configuration, which is complete: the run did not have what is missing."""
        return self.text("dataset_sha256") is not None

    def has(self, key: str) -> bool:
        """Whether the user sets a key; a dotted key is within a table."""
        found: Any = self.table
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found is not None or any(_split(assignment)[0] == key for assignment in self.assignments)

    def apply(self, preset: Config, *, types: Mapping[str, type[Any]]) -> Config:
        """Returns the preset with the user's changes. types: of the fields whose annotation leaves the type open.

        Raises: DocumentError: an unknown key, or a value of the wrong type or out of range. ConfigError: an unknown
        setting; the message suggests similar ones.
        """
        settable = _settings(type(preset), types)
        whole = _merged(write_dataclass(preset), self.table, settable)
        for assignment in self.assignments:
            key, text = _split(assignment)
            if key not in settable:
                raise ConfigError(_unknown(key, settable))
            *tables, name = key.split(".")
            table: Any = whole
            for part in tables:
                table = table.setdefault(part, {}) if isinstance(table, dict) else table
            value = value_of_text(text, settable[key])
            if not isinstance(table, dict):
                continue  # the file has a value where this table belongs, which is reported below
            if value is None:
                table.pop(name, None)  # TOML has no null: a missing key means None
            else:
                table[name] = value
        sources = [str(self.file)] if self.file else []
        problems = Problems(" with ".join([*sources, *(["--set"] if self.assignments else [])]) or "the preset")
        config = read_dataclass(type(preset), whole, place="", problems=problems, types=types)
        problems.raise_if_any()
        assert config is not None
        return config


def _split(assignment: str) -> tuple[str, str]:
    key, _, text = assignment.partition("=")
    return key.strip(), text.strip()


def _merged(
    base: Mapping[str, Any], changes: Mapping[str, Any], settable: Collection[str], place: str = ""
) -> dict[str, Any]:
    """Returns the base with the changes merged table by table; a table that is one setting is replaced as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        before, name = merged.get(key), f"{place}{key}"
        if isinstance(value, dict) and isinstance(before, dict) and name not in settable:
            merged[key] = _merged(before, value, settable, f"{name}.")
        else:
            merged[key] = value
    return merged


def _settings(cls: type[Any], open_types: Mapping[str, type[Any]], place: str = "") -> dict[str, Any]:
    """The types of a configuration's settings, by dotted key."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(cls) | dict(open_types)
    for field in dataclasses.fields(cls):
        if f"{place}{field.name}" not in _ELSEWHERE:
            hint = hints[field.name]
            table = without_none(hint)
            if dataclasses.is_dataclass(table):
                found |= _settings(typing.cast(type[Any], table), {}, f"{place}{field.name}.")
            else:
                found[f"{place}{field.name}"] = hint
    return found


def _unknown(key: str, settable: Mapping[str, Any]) -> str:
    if key in _ELSEWHERE:
        return f"--set {key}: this is not set so; {_ELSEWHERE[key]}"
    inner = [name for name in settable if name.startswith(f"{key}.")]
    if inner:
        return f"--set {key}: this is a table; name one of its settings: {', '.join(inner)}"
    # Users often name a setting without its table or in another one, and write `epochs` for `num_epochs`.
    word = key.rpartition(".")[2]
    close = [name for name in settable if name.rpartition(".")[2] in (word, f"num_{word}")]
    close = close or difflib.get_close_matches(key, settable, n=1)
    if not close:
        last = {name.rpartition(".")[2]: name for name in settable}
        close = [last[name] for name in difflib.get_close_matches(word, last, n=1)]
    if not close:
        return f"--set {key}: unknown setting; a run's config.toml names them all"
    return f"--set {key}: unknown setting; did you mean {' or '.join(map(repr, close))}?"
