"""The published networks that latency targets of a space can name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from searcher.arch.catalog import published_names, published_spec
from searcher.arch.spec import Spec
from searcher.arch.tasks import Task
from searcher.spaces import search_space


def references_of(space_name: str, space: Any, task: Task) -> dict[str, Spec]:
    """Returns the published networks of an image space by name, for a task, as architectures of the space."""
    view = search_space(space_name).latency_view
    assert view is not None
    found: dict[str, Spec] = {}
    for name in published_names():
        spec = published_spec(name)
        if spec.space == space_name:
            architecture = view.reference(spec.architecture, space)
            if architecture is not None:
                found[name] = replace(spec, architecture=architecture, task=task)
    return found
