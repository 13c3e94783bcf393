"""The same architecture with other widths.

A width is any `channels` entry of a spec: of the whole network, or of each of its stages.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from searcher.arch.retarget import retarget
from searcher.arch.spec import Spec, parse_spec

MULTIPLE = 4
"""Scaled widths are multiples of this number."""

_PARTS = ("architecture", "network")
"""The parts of a spec's document that contain widths; `channels` in a provenance is not a width."""


def widths(spec: Spec) -> list[int]:
    """All widths of a network, from the first layer on; empty if its spec has no `channels`."""
    return [holder["channels"] for holder in _holders(spec.to_document())]


def has_one_width(network: Any) -> bool:
    """Whether a network's size contains one width for the whole network, which is not a decision of the space."""
    return hasattr(network, "channels")


def scaled(spec: Spec, factor: float) -> Spec:
    """The spec with every width multiplied by `factor` and rounded to a multiple of 4, at least 4.

    Raises: ArchitectureError: the spec's space has no network of these widths.
    """
    document = spec.to_document()
    parts = {part: _scaled(document[part], factor) for part in _PARTS}
    return parse_spec({**document, **parts}, source="scaled spec")


def with_changes(spec: Spec, steps: Mapping[int, int]) -> Spec | None:
    """The spec with some widths changed; None if a width would be below 1.

    Args: steps: position in `widths` -> channels to add.
    Raises: ArchitectureError: as `scaled`.
    """
    document = copy.deepcopy(spec.to_document())
    holders = list(_holders(document))
    for place, step in steps.items():
        holders[place]["channels"] += step
    return parse_spec(document, source="changed spec") if all(one["channels"] > 0 for one in holders) else None


def is_same_network(first: Spec, second: Spec) -> bool:
    """Whether two specs describe the same network, whatever data they are for: their layers are equal, and so are
    their sizes or their provenance. A network retrained from the other, even with other sizes, is the same."""

    def layers(spec: Spec) -> Any:
        return _scaled(spec.to_document()["architecture"], 0)

    if first.space != second.space:
        return False
    first = retarget(first, second.task)
    has_equal_sizes = (first.architecture, first.network) == (second.architecture, second.network)
    return has_equal_sizes or (first.provenance == second.provenance and layers(first) == layers(second))


def _holders(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields every object with a width of its own in a spec's document."""
    for part in _PARTS:
        yield from _with_widths(document[part])


def _with_widths(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every object with a width of its own in a part of a document."""
    if isinstance(value, dict) and "channels" in value:
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _with_widths(part)


def _scaled(value: Any, factor: float) -> Any:
    """Returns a part of a spec's document with its widths multiplied."""
    if isinstance(value, dict):
        return {
            key: max(1, round(entry * factor / MULTIPLE)) * MULTIPLE if key == "channels" else _scaled(entry, factor)
            for key, entry in value.items()
        }
    return [_scaled(entry, factor) for entry in value] if isinstance(value, list) else value
