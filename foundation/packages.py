"""The message for packages that are missing in an installation that only runs models."""

from __future__ import annotations


def needs(package: str) -> str:
    """Returns the message for a missing package; the caller puts the name of what needs it before."""
    return f"needs the package '{package}': pip install 'enas-toolchain[train]'"
