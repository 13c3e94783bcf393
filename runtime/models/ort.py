"""The only import of onnxruntime in this code, so that its telemetry is always switched off first."""

from __future__ import annotations

from foundation.telemetry import switch_off

switch_off()

import onnxruntime  # noqa: E402

__all__ = ["onnxruntime"]
