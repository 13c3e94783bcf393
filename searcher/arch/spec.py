"""The architecture spec, `spec.json`: the only thing that passes from search to export.

Validated on reading and on writing, and stable under a round trip: equal specs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from foundation.document import Problems, check_keys, read_dataclass, read_json, unknown, write_dataclass
from foundation.files import write_text
from searcher.arch.errors import ArchitectureError
from searcher.arch.space import SPACES
from searcher.arch.tasks import TASKS, Task

SCHEMA = 1
_LINE_WIDTH = 120


Architecture = TypeVar("Architecture")
Size = TypeVar("Size")
TaskType = TypeVar("TaskType", bound=Task)


@dataclass(frozen=True)
class SpecOf(Generic[Architecture, Size, TaskType]):
    """An architecture, the size of its network, and its task; their types depend on the space.

    `network` is the space's size dataclass, `task` a dataclass of `tasks.py`; `provenance` records how the architecture
    was found and may be empty.
    """

    space: str
    architecture: Architecture
    network: Size
    task: TaskType
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the document's text. Raises: ArchitectureError: the spec is invalid."""
        document = self.to_document()
        parse_spec(document, source="spec")
        return _format(document) + "\n"

    def to_document(self) -> dict[str, Any]:
        document = {
            "schema": SCHEMA,
            "space": self.space,
            "architecture": SPACES[self.space].to_document(self.architecture),
            "network": write_dataclass(self.network),
            "task": write_dataclass(self.task),
        }
        if self.provenance:
            document["provenance"] = dict(self.provenance)
        return document


Spec: TypeAlias = SpecOf[Any, Any, Task]
"""A spec of any space."""


def parse_spec(document: object, *, source: str) -> Spec:
    """Returns the spec of a parsed JSON document.

    Raises: ArchitectureError, naming `source`, every place that breaks a rule, and the rule.
    """
    problems = Problems(source)
    if not isinstance(document, Mapping):
        raise ArchitectureError(source, ["the document must be a JSON object"])
    check_keys(
        document,
        place="",
        required=("schema", "space", "architecture", "network", "task"),
        optional=("provenance",),
        problems=problems,
    )
    if "schema" in document and (type(document["schema"]) is not int or document["schema"] != SCHEMA):
        problems.add(f"schema is {document['schema']!r}; this version reads schema {SCHEMA}")
        problems.raise_if_any(ArchitectureError)
    space = document.get("space")
    if "space" in document and (not isinstance(space, str) or space not in SPACES):
        problems.add(f"space: {unknown('space', space, tuple(SPACES))}")
        problems.raise_if_any(ArchitectureError)
    architecture = network = task = None
    if isinstance(space, str):
        module = SPACES[space]
        if "architecture" in document:
            architecture = module.from_document(document["architecture"], place="architecture", problems=problems)
        if "network" in document:
            network = read_dataclass(module.SIZE, document["network"], place="network", problems=problems)
        if "task" in document:
            task = _read_task(document["task"], kind=module.TASK_KIND, space=space, problems=problems)
    provenance = document.get("provenance", {})
    if not isinstance(provenance, Mapping):
        problems.add("provenance must be an object")
    problems.raise_if_any(ArchitectureError)
    assert isinstance(space, str)
    assert architecture is not None
    assert network is not None
    assert task is not None
    return Spec(space=space, architecture=architecture, network=network, task=task, provenance=provenance)


def read_spec(path: Path) -> Spec:
    """Read and validate a spec file. Raises: ArchitectureError."""
    return parse_spec(read_json(path, ArchitectureError), source=path.name)


def spec_digest(spec: Spec) -> str:
    """SHA-256 of a spec's text."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()


def write_spec(path: Path, spec: Spec) -> None:
    """Write a spec file atomically. Raises: ArchitectureError: the spec is invalid."""
    write_text(path, spec.to_json())


def _read_task(document: object, *, kind: str, space: str, problems: Problems) -> Task | None:
    """Reads the `task` section, which must be of the space's kind of task; None, with the reasons noted, if not."""
    if isinstance(document, Mapping) and document.get("kind", kind) != kind:
        found = document["kind"]
        if isinstance(found, str) and found in TASKS:
            problems.add(f"task.kind is {found!r}, but {space} networks are for {kind}")
        else:
            problems.add(f"task.kind: {unknown('kind', found, TASKS)}")
        return None
    return read_dataclass(TASKS[kind], document, place="task", problems=problems)


def _format(value: Any, indent: str = "") -> str:
    """Returns JSON in which every value that fits on one line is on one line, such as a node of a cell."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(flat) <= _LINE_WIDTH - 20 or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {_format(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + indent + "}"
    return "[\n" + ",\n".join(inner + _format(v, inner) for v in value) + "\n" + indent + "]"
