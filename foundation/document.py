"""Reads documents that a person may have written, and reports every problem found, each with its place.

Knows JSON and TOML tables and dataclasses, and nothing of what they describe.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class DocumentError(ValueError):
    """A document is invalid. `problems` holds one line for each problem."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class ConfigError(ValueError):
    """A setting has a value that is not allowed."""


class Problems:
    """Collects the problems of one document, so that all of them can be reported together."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        self._found.append(problem)

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self, error: type[DocumentError] = DocumentError) -> None:
        """Raises: `error`, with all problems, if there are any."""
        if self._found:
            raise error(self.source, self._found)


def unknown(kind: str, word: object, allowed: Collection[str]) -> str:
    """`unknown operation 'sepconv3x3'; expected one of …; did you mean 'sep_conv_3x3'?`

    The suggestion ignores upper and lower case: `CIFAR-10` is near `cifar10`.
    """
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    hint = f"; did you mean '{by_lower[close[0]]}'?" if close else ""
    return f"unknown {kind} {word!r}; expected one of {', '.join(allowed)}{hint}"


def read_json(path: Path, error: type[DocumentError] = DocumentError) -> Any:
    """Parse a JSON file strictly: no trailing text, no repeated keys, no NaN.

    Raises: `error`: the file is missing or is not JSON; OSError: it cannot be read.
    """

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise ValueError(f"the key {repeated[0]!r} stands twice in one object")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=without_repeats, parse_constant=refuse)
    except (FileNotFoundError, NotADirectoryError):  # the latter if a folder of the path is a file
        raise error(str(path), ["no such file"]) from None
    except (UnicodeDecodeError, RecursionError) as problem:
        raise error(str(path), [f"not a JSON text ({type(problem).__name__})"]) from None
    except ValueError as problem:
        raise error(str(path), [f"not valid JSON: {problem}"]) from None


def check_keys(
    document: Mapping[str, Any],
    *,
    place: str,
    required: Collection[str],
    optional: Collection[str] = (),
    problems: Problems,
) -> None:
    """Adds a problem for every key that is missing or unknown at `place`."""
    allowed = [*required, *optional]
    for key in document:
        if key not in allowed:
            problem = unknown("key", key, allowed) if allowed else f"unknown key {key!r}; none is expected"
            problems.add(f"{place + ': ' if place else ''}{problem}")
    for key in required:
        if key not in document:
            problems.add(f"{join(place, key)} is missing")


def join(place: str, key: str) -> str:
    """The place of `key` inside `place`: `network` and `cells` give `network.cells`."""
    return f"{place}.{key}" if place else key


def read_dataclass(
    cls: type[T],
    document: object,
    *,
    place: str,
    problems: Problems,
    types: Mapping[str, type[Any]] | None = None,
) -> T | None:
    """Returns an instance of a frozen dataclass from a table; None if it is invalid, with the reasons in `problems`.

    `types` gives the types of fields whose annotation leaves them open.

    Fields may be int, float, bool, str, a Literal, a homogeneous tuple, a mapping with text keys, an optional of these,
    or a dataclass. Fields with a default may be left out.
    """
    if not isinstance(document, Mapping):
        problems.add(f"{place or 'the document'} is {_kind(document)}; expected a table of keys and values")
        return None
    before = len(problems)
    hints = typing.get_type_hints(cls) | dict(types or {})
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    missing = dataclasses.MISSING
    has_default = {f.name for f in fields if f.default is not missing or f.default_factory is not missing}
    check_keys(
        document,
        place=place,
        required=[f.name for f in fields if f.name not in has_default],
        optional=[f.name for f in fields if f.name in has_default],
        problems=problems,
    )
    values = {
        f.name: _read_value(hints[f.name], document[f.name], place=join(place, f.name), problems=problems)
        for f in fields
        if f.name in document
    }
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as problem:
        problems.add(f"{place}: {problem}" if place else str(problem))
        return None


def write_dataclass(value: object) -> Any:
    """Returns the table that `read_dataclass` reads back. Keys whose value is None are left out: TOML has no null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        table = {f.name: write_dataclass(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {key: entry for key, entry in table.items() if entry is not None}
    if isinstance(value, tuple):
        return [write_dataclass(item) for item in value]
    if isinstance(value, Mapping):
        return {key: write_dataclass(item) for key, item in value.items()}
    return value


def without_none(hint: Any) -> Any:
    """The type of an optional, or the type itself."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint
    (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
    return hint


def value_of_text(text: str, hint: Any) -> Any:
    """Returns the value that a text of a command line has for a field of type `hint`: `none`, `true`, `0.05`.

    A text that cannot be parsed is returned unchanged; `read_dataclass` then refuses its type.
    """
    inner = without_none(hint)
    if inner is not hint and text == "none":
        return None
    if inner is str or typing.get_origin(inner) is Literal:
        return text
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _read_value(hint: Any, value: object, *, place: str, problems: Problems) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _read_value(without_none(hint), value, place=place, problems=problems)
    if dataclasses.is_dataclass(hint):
        return read_dataclass(hint, value, place=place, problems=problems)  # type: ignore[arg-type]
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            problems.add(f"{place}: {unknown('value', value, [str(a) for a in allowed])}")
        return value
    if origin is Mapping:
        if not isinstance(value, Mapping):
            problems.add(f"{place} is {_kind(value)}; expected a table of names and values")
            return {}
        item = typing.get_args(hint)[1]
        return {
            key: _read_value(item, entry, place=join(place, key), problems=problems) for key, entry in value.items()
        }
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.add(f"{place} is {_kind(value)}; expected a list")
            return ()
        (item, *_) = typing.get_args(hint)
        return tuple(
            _read_value(item, entry, place=f"{place}[{i}]", problems=problems) for i, entry in enumerate(value)
        )
    if type(value) is int and abs(value) >= _TOO_LARGE:
        problems.add(f"{place} is a whole number of more than 18 digits; expected {_NAMES.get(hint, hint.__name__)}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        problems.add(f"{place} is {_kind(value)}; expected {_NAMES.get(hint, hint.__name__)}")
    elif type(value) is float and not math.isfinite(value):
        problems.add(f"{place} is {value}; expected a finite number")
    return value


# Integers from here on do not fit into all arrays and files.
_TOO_LARGE = 10**18
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else repr(value)
