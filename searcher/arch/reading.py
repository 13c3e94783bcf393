"""Reads an architecture that a user may have written: the objects and lists of a document, the numbers of an encoding.

Notes every problem with its place. Knows nothing of the content of architectures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foundation.document import Problems, check_keys
from searcher.arch.errors import ArchitectureError


def read_numbers(text: str, *, source: str) -> list[int]:
    """Returns the whole numbers of an encoding. Raises: ArchitectureError: it contains anything else."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ArchitectureError(source, ["expected whole numbers separated by blanks"]) from None


def read_object(document: object, *, place: str, keys: Sequence[str], problems: Problems) -> Mapping[str, Any] | None:
    """Returns the object and notes missing and unknown keys; None, with the reason noted, if it is not an object."""
    if not isinstance(document, Mapping):
        problems.add(f"{place} must be an object with the keys {', '.join(keys[:-1])} and {keys[-1]}")
        return None
    check_keys(document, place=place, required=keys, problems=problems)
    return document


def read_list(document: object, *, place: str, entry: str, problems: Problems) -> list[object]:
    """Returns the list; an empty list, with the reason noted, if it is not a list or has no entry.

    entry: the name of an entry in messages.
    """
    if not isinstance(document, list) or not document:
        problems.add(f"{place} must be a list with at least one {entry}")
        return []
    return document


def read_entries(
    entries: Sequence[object], *, place: str, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yields position, place and object of each object with exactly these keys; notes the problems of the others."""
    for position, entry in enumerate(entries):
        entry_place, before = f"{place}[{position}]", len(problems)
        found = read_object(entry, place=entry_place, keys=keys, problems=problems)
        if found is not None and len(problems) == before:
            yield position, entry_place, found


def check_number(
    entry: Mapping[str, Any], key: str, *, place: str, position: int, first: int, problems: Problems
) -> None:
    """Note a problem if an entry does not contain its own number. first: the number of the entry at position 0."""
    if type(entry[key]) is not int or entry[key] != position + first:
        problems.add(
            f"{place}.{key} is {entry[key]!r}; expected {position + first}: {key}s stand in order from {first}"
        )
