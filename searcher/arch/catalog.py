"""The published architectures by name, and the spec of a user's SPEC, which is a file, a run or such a name."""

from __future__ import annotations

import shlex
from pathlib import Path

from foundation.document import DocumentError, read_json, unknown
from searcher.arch.errors import ArchitectureError
from searcher.arch.spec import Spec, parse_spec

_PUBLISHED = Path(__file__).parent / "published"


def published_names() -> tuple[str, ...]:
    """The names of the published architectures, in order."""
    return tuple(sorted(path.stem for path in _PUBLISHED.glob("*.json")))


def published_spec(name: str) -> Spec:
    """The published architecture `name`, with the size of its published network.

    Raises: ArchitectureError: there is none of that name.
    """
    names = published_names()
    if name not in names:
        raise ArchitectureError("spec", [unknown("spec", name, (*names, "or a path to a spec.json or a run"))])
    return _read(_PUBLISHED / f"{name}.json", source=name)


def check_is_run(path: Path) -> None:
    """Raises: DocumentError: `path` is a file, not the directory of a run."""
    if path.is_file():
        raise DocumentError(str(path), ["a file; expected the directory of a run"])


def find_spec(source: Path) -> Spec:
    """Returns the spec in a file, of a run directory, or published under a name; an existing path takes precedence.

    Raises: ArchitectureError, naming the source as it was typed: there is no such spec, or it is invalid.
    """
    makes_it = f"`enas search --run {shlex.quote(str(source))}` makes it"
    if source.is_dir():
        # A run that trains a given spec without a search contains only retrain/spec.json.
        specs = (source / "spec.json", source / "retrain" / "spec.json")
        path = next((one for one in specs if one.exists()), specs[0])
        if not path.exists():
            raise ArchitectureError(str(path), [f"no such file; {makes_it}"])
        return _read(path, source=str(path))
    if source.exists() or source.suffix == ".json":
        return _read(source, source=str(source))
    if len(source.parts) > 1:
        raise ArchitectureError(str(source), [f"no such run directory; {makes_it}"])
    return published_spec(str(source))


def _read(path: Path, *, source: str) -> Spec:
    return parse_spec(read_json(path, ArchitectureError), source=source)
