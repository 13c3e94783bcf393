"""Packages that an installation which only runs models does without."""

from __future__ import annotations


def needs(package: str) -> str:
    """What to tell a user for whom a package is missing, after the name of what needs it."""
    return f"needs the package '{package}': pip install 'enas-toolchain[train]'"
