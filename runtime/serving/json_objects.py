"""JSON objects that clients send, held to limits before they are read."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from runtime.serving.errors import RequestError, TooLargeError

MAX_JSON_BYTES = 16 * 2**20
"""Of a request's JSON: reading it keeps the interpreter busy, which large tensors as bytes do not."""
MAX_JSON_DEPTH = 100
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object, not larger and not deeper than allowed.

    Raises: RequestError, TooLargeError.
    """
    if len(text) > MAX_JSON_BYTES:
        raise TooLargeError(
            f"the request's JSON has {len(text):,} bytes, at most {MAX_JSON_BYTES:,} are allowed; "
            "send large tensors as bytes (binary_data_size)"
        )
    if (depth := _depth(text)) > MAX_JSON_DEPTH:
        raise RequestError(f"the request's JSON is nested {depth} deep, at most {MAX_JSON_DEPTH} is allowed")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"failed to parse the request JSON buffer: {error}") from None
    if not isinstance(document, dict):
        raise RequestError("the request must be a JSON object")
    return document


def _depth(text: bytes) -> int:
    """The deepest nesting of arrays and objects, as far as the text is JSON."""
    if text.count(b"[") + text.count(b"{") <= MAX_JSON_DEPTH:
        return 0
    characters = np.frombuffer(_STRINGS.sub(b"", text), dtype=np.uint8)
    steps = np.zeros(256, dtype=np.int32)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    return int(steps[characters].cumsum().max(initial=0))
