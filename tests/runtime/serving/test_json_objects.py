"""Numbers in JSON: the same as Python's parser finds, in little memory, and without keeping others waiting."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from runtime.models.inputs import tensor_spec
from runtime.models.protocol_names import DTYPES
from runtime.serving.errors import RequestError, ServeError
from runtime.serving.protocol.json_objects import ValuesError, read_values
from runtime.serving.protocol.requests import InferReader
from runtime.serving.protocol.signature import Signature
from tests.runtime.serving.test_protocol import IMAGES, TEXT, image_input, parse

FLOATS = Signature("f", (tensor_spec("x", np.dtype(np.float64), ["batch", "n"]),), IMAGES.outputs, max_batch_size=4)
# Of the largest body that is allowed; a small body may take MIB however little it holds.
_MULTIPLE = 8
_MIB = 2**20


def read(text: str, *, shape: list[int], datatype: str = "INT64") -> np.ndarray:
    return read_values(memoryview(text.encode()), dtype=DTYPES[datatype], shape=shape)


@pytest.mark.parametrize("text", ["[1,2,3,4]", "[[1,2],[3,4]]", " [ [ 1 , 2 ] ,\n[3,4] ] ".strip(), "[1,2,\t3,4 ]"])
def test_values_are_those_of_the_text(text: str) -> None:
    np.testing.assert_array_equal(read(text, shape=[2, 2]), [[1, 2], [3, 4]])


@pytest.mark.parametrize("size", [10, 30_000, 60_000])
@pytest.mark.parametrize("is_nested", [False, True])
def test_long_lists_are_read_in_blocks_as_in_one(size: int, is_nested: bool) -> None:
    values = np.random.default_rng(size).integers(-(2**63), 2**63 - 1, (2, size, 1))
    text = json.dumps((values if is_nested else values.ravel()).tolist())
    np.testing.assert_array_equal(read(text, shape=[2, size, 1]), values)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("[1,2,3]", [2, 2], "is not of shape [2, 2]"),
        ("[1]", [10**9, 10**9], "is not of shape [1000000000, 1000000000]"),
        ("[[1,2],[3]]", [2, 2], "is not of shape [2, 2]"),
        ("[[1],[2],[3],[4]]", [2, 2], "is not of shape [2, 2]"),
        ("[1[],2[]]", [2, 1], "is not of shape [2, 1]"),
        ("[[]1,[2]]", [2, 1], "is ragged"),
        ("[1,true]", [2], "holds something else than INT64 values"),
        ("[1,null]", [2], "holds something else than INT64 values"),
        ('[1,"a"]', [2], "holds something else than INT64 values"),
        ("[1,2.5]", [2], "holds something else than INT64 values"),
    ],
)
def test_what_is_no_such_list_is_told(text: str, shape: list[int], message: str) -> None:
    with pytest.raises(ValuesError) as caught:
        read(text, shape=shape)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text", ["[10,,2]", "[,10,2]", "[1,20,]", "[1 2,3,4]", "[1-,2,3]", "[01,2,3]", "[1," + " " * 70_000 + ",3]"]
)
def test_what_is_not_json_is_no_list(text: str) -> None:
    with pytest.raises(RequestError, match="failed to parse the request JSON buffer"):
        read(text, shape=[3])


def test_a_list_in_another_place_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^1 lists called data belong to no input$"):
        parse({"inputs": [image_input()], "parameters": {"data": [1]}})


def test_a_key_spelt_with_escapes_is_the_same_key() -> None:
    text = json.dumps({"inputs": [image_input()]}).replace('"data"', '"d\\u0061ta"').encode()
    assert InferReader(None).read(text, IMAGES).feed["images"].sum() == sum(range(8))


def test_a_text_that_looks_like_the_key_is_a_text() -> None:
    text = json.dumps({"id": 'x"data": [1]', "inputs": [image_input()]}).encode()
    assert InferReader(None).read(text, IMAGES).id == 'x"data": [1]'


# --- memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def peak_of(body: bytes, signature: Signature, *, length: str | None = None) -> int:
    """Bytes that reading a body takes at most, beside the body."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with suppress(ServeError):
        InferReader(length).read(body, signature)
    return tracemalloc.get_traced_memory()[1] - before


def test_one_text_among_numbers_makes_none_of_them_as_wide() -> None:
    entry = {"name": "x", "datatype": "FP64", "shape": [1, 10_001], "data": ["a" * 20_000, *[0] * 10_000]}
    with memory():
        assert peak_of(json.dumps({"inputs": [entry]}).encode(), FLOATS) < 4 * _MIB


@pytest.mark.parametrize("value", ["0", "[]", "{}", '{"":0}', '"a"', "null", "[[0]]", "1e9"])
def test_a_body_of_any_one_thing_takes_a_few_times_its_limit(value: str) -> None:
    count = 2 * _MIB // (len(value) + 1)
    head = f'{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1,{count}],"data":['
    body = (head + f"{value}," * (count - 1) + value + "]}]}").encode()
    with memory():
        assert peak_of(body, FLOATS) < _MULTIPLE * len(body)
        assert peak_of(body.replace(b"data", b"dada"), FLOATS) < _MULTIPLE * len(body)


def fuzzed(seed: int) -> bytes:
    """A body that is nearly a request, or nearly JSON, of at most some thousand bytes."""
    dice = random.Random(seed)
    pieces = [
        '"data":',
        "[",
        "]",
        "{",
        "}",
        ",",
        '"',
        "\\",
        "0",
        "1e5",
        "-3",
        '"":',
        "null",
        "true",
        " ",
        '"images"',
        ":",
    ]
    many = "".join(dice.choice(pieces) * dice.choice([1, 1, 1, 40, 900]) for _ in range(dice.randrange(12)))
    entry = image_input(shape=dice.choice([[2, 2, 2, 1], [2**40, 2, 2, 1], [4, 2, 2, 1]]))
    text = json.dumps({"inputs": [entry], "id": "x" * dice.choice([1, 3000])})
    place = dice.randrange(len(text))
    return (text[:place] + many + text[place + dice.randrange(9) :]).encode()


def test_no_body_of_ten_thousand_takes_more_memory_than_is_stated() -> None:
    with memory():
        peaks = [
            peak_of(fuzzed(seed), (IMAGES, TEXT)[seed % 2], length=(None, "0", "99")[seed % 3])
            for seed in range(10_000)
        ]
    assert max(peaks) < _MIB


# --- others -----------------------------------------------------------------------------------------------------------


def test_other_threads_run_while_a_large_request_is_read() -> None:
    count = 1_000_000
    head = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,%d],"data":[' % count
    body = head + b"0.125," * (count - 1) + b"0.125]}]}"
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        shares = [_longest_share(body) for _ in range(2)]
    finally:
        sys.setswitchinterval(before)
    assert min(shares) < 0.2


def _longest_share(body: bytes) -> float:
    """Of the time that reading takes, the longest part in which no other thread came to run."""
    reader = threading.Thread(target=InferReader(None).read, args=(body, FLOATS))
    start = last = time.perf_counter()
    longest = 0.0
    reader.start()
    while reader.is_alive():
        time.sleep(0.0005)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest / (last - start)
