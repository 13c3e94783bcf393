"""Switches off the telemetry of third-party packages, unless the user has switched it on."""

from __future__ import annotations

import os


def switch_off() -> None:
    """Switches off onnxruntime's telemetry. Call before onnxruntime is imported anywhere.

    Its wheels from 1.31 on contain Microsoft's telemetry, on by default: importing them creates a file under the home
    directory, and later looks up a host name. A value of the variable that the user has set is kept.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
