"""JSON from clients: checks documents against limits before parsing, and reads long lists of numbers in blocks.

As Python objects, a list of numbers takes about thirty times the memory of its text, and parsing it blocks all other
threads. So the lists named `data` are cut out of a document before it is parsed, and are read in blocks into the array
for the model.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from runtime.models.protocol_names import DATATYPES
from runtime.serving.errors import RequestError, TooLargeError

MAX_JSON_BYTES = 16 * 2**20
"""Limit of a request's JSON, including its tensors."""
MAX_DOCUMENT_BYTES = 256 * 2**10
"""Limit of JSON without the lists named `data`: the part that becomes Python objects."""
MAX_JSON_DEPTH = 100
_BLOCK = 64 * 1024
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_KEY = b'"data"'
_LIST = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")
_SPACE = b" \t\r\n"
_NUMBERS = b"0123456789+-.eE" + _SPACE
_TRUTHS = b"truefals" + _SPACE
# A bracket beside a character that JSON does not allow there, once blanks are removed.
_MISPLACED = re.compile(rb"[^\[,]\[|\][^\],]")
# Placeholder for a list that was cut out; no client can know it.
_SECRET = os.urandom(16).hex()


class ValuesError(ValueError):
    """A list is not as expected; the message is a predicate, such as "is ragged"."""


def parse_json(text: bytes) -> dict[str, Any]:
    """Parse a JSON object within the limits of size and depth.

    Raises: RequestError, TooLargeError.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise TooLargeError(
            f"the request's JSON has {len(text):,} bytes beside its tensors, at most {MAX_DOCUMENT_BYTES:,} are allowed"
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


def parse_tensors(text: bytes) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """Parse a JSON object; returns it with a placeholder for each list named `data`, and placeholder -> list as sent.

    Raises: RequestError, TooLargeError: as `parse_json`.
    """
    if len(text) > MAX_JSON_BYTES:
        raise TooLargeError(
            f"the request's JSON has {len(text):,} bytes, at most {MAX_JSON_BYTES:,} are allowed; "
            "send large tensors as bytes (binary_data_size)"
        )
    lists: dict[str, memoryview] = {}
    parts: list[bytes] = []
    done = place = 0
    while (place := text.find(_KEY, place)) >= 0:
        key = _LIST.match(text, place + len(_KEY))
        # An escaped quote is inside a string; a quote that ends a string is never followed by `data` in valid JSON.
        is_escaped = text[place - 1 : place] == b"\\"
        place += len(_KEY)
        if key is None or is_escaped or (end := _end_of_list(text, key.end())) is None:
            continue
        name = f"{_SECRET}{len(lists)}"
        lists[name] = memoryview(text)[key.end() : end]
        parts += [text[done : key.end()], b'"', name.encode(), b'"']
        done = place = end
    return parse_json(b"".join([*parts, text[done:]]) if lists else text), lists


def _end_of_list(text: bytes, start: int) -> int | None:
    """The end of the list of numbers that begins at `start`; None if it is no such list, which the parser reports."""
    quote = text.find(b'"', start)
    end = len(text) if quote < 0 else quote
    for brace in b"{}":
        found = text.find(brace, start, end)
        end = end if found < 0 else found
    last = text.rfind(b"]", start, end) + 1
    return last if last and text[last:end].strip() in (b"", b",") else None


def read_values(text: memoryview, *, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """The values of a JSON list, flat or nested like the shape.

    Allocates only after the list's brackets and commas have been checked against the shape.
    Raises: ValuesError: they do not match, or the type cannot represent a value. RequestError: not JSON.
    """
    _check_shape(text, dtype=dtype, shape=shape)
    array = np.empty(math.prod(shape), dtype)
    filled, start = 0, 0
    while start < len(text):
        block = bytes(text[start : start + _BLOCK])
        # A block ends between two values; no value is as long as a block.
        end = len(block) if start + len(block) == len(text) else block.rfind(b",")
        if end < 0:
            raise RequestError("failed to parse the request JSON buffer: a number is too long")
        values = _exact(block[:end], dtype=dtype)
        array[filled : filled + len(values)] = values
        filled += len(values)
        start += end + 1
    if filled != array.size:
        raise RequestError("failed to parse the request JSON buffer: a value is missing between commas")
    return array.reshape(shape)


def _check_shape(text: memoryview, *, dtype: np.dtype, shape: Sequence[int]) -> None:
    """Raises: ValuesError: the list's brackets and commas do not match the shape."""
    count = math.prod(shape)
    is_nested = len(shape) > 1 and bytes(text[1:_BLOCK]).lstrip(_SPACE)[:1] == b"["
    num_brackets = 2 * sum(accumulate(shape[:-1], operator.mul, initial=1)) if is_nested else 2
    # A shorter text cannot contain all values: an array of that shape would be larger than what was sent.
    can_hold = len(text) >= num_brackets + 2 * count - 1
    expected = _brackets(shape if is_nested else [count]) if can_hold else b""
    position, last = 0, b"["
    for start in range(0, len(text), _BLOCK):
        block = bytes(text[start : start + _BLOCK])
        found = block.translate(None, _TRUTHS if dtype.kind == "b" else _NUMBERS)
        if found.translate(None, b"[],"):
            raise ValuesError(f"holds something else than {DATATYPES[dtype]} values")
        if not can_hold:
            continue
        if expected[position : position + len(found)] != found:
            can_hold = False
        position += len(found)
        if is_nested:
            beside = last + block.translate(None, _SPACE)
            if _MISPLACED.search(beside):
                raise ValuesError("is ragged")
            last = beside[-1:]
    if not can_hold or position != len(expected):
        raise ValuesError(f"is not of shape {list(shape)}")


def _brackets(shape: Sequence[int]) -> bytes:
    """The brackets and commas of a nested list."""
    text = b"[" + b"," * (shape[-1] - 1) + b"]"
    for size in reversed(shape[:-1]):
        text = b"[" + b",".join([text] * size) + b"]"
    return text


def _exact(block: bytes, *, dtype: np.dtype) -> np.ndarray:
    """The values of a comma-separated text; brackets are ignored. Raises: ValuesError, RequestError."""
    try:
        numbers = orjson.loads(b"[" + block.translate(None, b"[]") + b"]")
    except orjson.JSONDecodeError as error:
        raise RequestError(f"failed to parse the request JSON buffer: {error}") from None
    values = np.array(numbers)
    if dtype == np.uint64 and values.dtype.kind == "f" and not any(isinstance(number, float) for number in numbers):
        # numpy converts a mix of integers above and below 2**63 to floats.
        try:
            values = np.array(numbers, dtype=np.uint64)
        except OverflowError:
            raise ValuesError(f"holds a value that {DATATYPES[dtype]} cannot") from None
    if values.size and values.dtype.kind not in {"b": "b", "f": "iuf"}.get(dtype.kind, "iu"):
        raise ValuesError(f"holds something else than {DATATYPES[dtype]} values")
    with np.errstate(over="ignore"):
        array = values.astype(dtype)
    if not (np.isfinite(array) if dtype.kind == "f" else array == values).all():
        raise ValuesError(f"holds a value that {DATATYPES[dtype]} cannot")
    return array


def _depth(text: bytes) -> int:
    """The deepest nesting of arrays and objects, if the text is JSON; 0 if it cannot exceed the limit."""
    if text.count(b"[") + text.count(b"{") <= MAX_JSON_DEPTH:
        return 0
    characters = np.frombuffer(_STRINGS.sub(b"", text), dtype=np.uint8)
    steps = np.zeros(256, dtype=np.int32)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    return int(steps[characters].cumsum().max(initial=0))
