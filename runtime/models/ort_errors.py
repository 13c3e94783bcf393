"""Recognises onnxruntime's errors and extracts the readable part of their messages. Does not load onnxruntime."""

from __future__ import annotations

import re

# `[ONNXRuntimeError] : 10 : INVALID_GRAPH : …`: the readable part follows the codes.
_CODES = re.compile(r"^\[\w+\] : \d+ : \w+ : ")


def is_onnxruntimes(error: Exception) -> bool:
    """Whether onnxruntime raised the error; its errors have no base class but Exception."""
    return type(error).__module__.startswith("onnxruntime")


def message_of(error: Exception) -> str:
    """An error's message without onnxruntime's codes."""
    return _CODES.sub("", str(error).strip())


def reason_of(error: Exception) -> str:
    """The first line of an error's message, or the error's type if the message is empty."""
    return message_of(error).partition("\n")[0] or type(error).__name__
