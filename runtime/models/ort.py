"""onnxruntime, imported here and nowhere else in this code, so that nothing precedes the switch for its telemetry."""

from __future__ import annotations

from foundation.telemetry import switch_off

switch_off()

import onnxruntime  # noqa: E402

__all__ = ["onnxruntime"]
