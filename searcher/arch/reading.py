"""Reading an architecture that a person may have written: the objects and lists of a document, the numbers of an
encoding.

Every problem is noted with its place. Knows nothing of what architectures hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foundation.document import Problems, check_keys
from searcher.arch.errors import ArchitectureError


def read_numbers(text: str, *, source: str) -> list[int]:
    """The whole numbers of an encoding. Raises: ArchitectureError: it has something else."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ArchitectureError(source, ["expected whole numbers separated by blanks"]) from None


def read_object(document: object, *, place: str, keys: Sequence[str], problems: Problems) -> Mapping[str, Any] | None:
    """The object, whose missing and unknown keys are noted; None, with the reason noted, if it is no object."""
    if not isinstance(document, Mapping):
        problems.add(f"{place} must be an object with the keys {', '.join(keys[:-1])} and {keys[-1]}")
        return None
    check_keys(document, place=place, required=keys, problems=problems)
    return document


def read_list(document: object, *, place: str, entry: str, problems: Problems) -> list[object]:
    """The list; an empty one, with the reason noted, if it is none or has no entry. entry: what stands in it."""
    if not isinstance(document, list) or not document:
        problems.add(f"{place} must be a list with at least one {entry}")
        return []
    return document


def read_entries(
    entries: Sequence[object], *, place: str, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The objects of a list that have these keys and no others: position, place, object. What others lack is noted."""
    for position, entry in enumerate(entries):
        entry_place, before = f"{place}[{position}]", len(problems)
        found = read_object(entry, place=entry_place, keys=keys, problems=problems)
        if found is not None and len(problems) == before:
            yield position, entry_place, found


def check_number(
    entry: Mapping[str, Any], key: str, *, place: str, position: int, first: int, problems: Problems
) -> None:
    """Note an entry that does not say its own number. first: that of the entry at position 0."""
    if type(entry[key]) is not int or entry[key] != position + first:
        problems.add(
            f"{place}.{key} is {entry[key]!r}; expected {position + first}: {key}s stand in order from {first}"
        )
