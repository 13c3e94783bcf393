"""What onnxruntime raises: how to know it, and what of its messages is for people. Does not load onnxruntime."""

from __future__ import annotations

import re

# `[ONNXRuntimeError] : 10 : INVALID_GRAPH : …`: what follows the codes is for people.
_CODES = re.compile(r"^\[\w+\] : \d+ : \w+ : ")


def is_onnxruntimes(error: Exception) -> bool:
    """Whether onnxruntime raised it; its errors derive from Exception alone."""
    return type(error).__module__.startswith("onnxruntime")


def message_of(error: Exception) -> str:
    """What an error says, without onnxruntime's codes."""
    return _CODES.sub("", str(error).strip())


def reason_of(error: Exception) -> str:
    """What went wrong, in one line: the first of its message, or its type where it has none."""
    return message_of(error).partition("\n")[0] or type(error).__name__
