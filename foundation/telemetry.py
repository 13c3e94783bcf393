"""No word to anybody: what other people's packages would send home is off, unless the user has switched it on."""

from __future__ import annotations

import os


def switch_off() -> None:
    """To be called before onnxruntime is imported by anyone.

    Its wheels from 1.31 on carry Microsoft's telemetry, switched on: importing them makes a file under the home
    directory, and later looks up a name. The user's own setting of the variable stands.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
