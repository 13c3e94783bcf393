"""The error of an invalid architecture."""

from __future__ import annotations

from foundation.document import DocumentError


class ArchitectureError(DocumentError):
    """An architecture, or a spec that holds one, breaks the rules of its space."""
