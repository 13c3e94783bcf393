"""Requests as bytes, without a server or a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runtime.models.inputs import tensor_spec
from runtime.models.protocol_names import DTYPES
from runtime.serving.errors import RequestError, ServeError, TooLargeError, UnsupportedError
from runtime.serving.protocol.requests import InferReader, InferRequest, OutputWish
from runtime.serving.protocol.signature import Signature

IMAGES = Signature(
    "m",
    (tensor_spec("images", np.dtype(np.uint8), ["batch", 2, 2, 1]),),
    (
        tensor_spec("logits", np.dtype(np.float32), ["batch", 3]),
        tensor_spec("probabilities", np.dtype(np.float32), ["batch", 3]),
    ),
    max_batch_size=4,
)
TEXT = Signature(
    "t",
    (
        tensor_spec("tokens", np.dtype(np.int64), ["batch", "time"]),
        tensor_spec("targets", np.dtype(np.int64), ["batch", "time"]),
        tensor_spec("state", np.dtype(np.float32), ["batch", 3]),
    ),
    (tensor_spec("log_probs", np.dtype(np.float32), ["batch", "time"]),),
    max_batch_size=4,
)
PIXELS = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)


def image_input(**changes: Any) -> dict[str, Any]:
    entry = {"name": "images", "datatype": "UINT8", "shape": [2, 2, 2, 1], "data": PIXELS.ravel().tolist()}
    return {key: value for key, value in (entry | changes).items() if value is not None}


def parse(document: Any, *, tensors: bytes | None = None, signature: Signature = IMAGES) -> InferRequest:
    header = json.dumps(document).encode()
    if tensors is None:
        return InferReader(None).read(header, signature)
    return InferReader(str(len(header))).read(header + tensors, signature)


# --- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [PIXELS.ravel().tolist(), PIXELS.tolist()], ids=["flat", "nested"])
def test_tensors_are_read_from_json(data: list[Any]) -> None:
    request = parse({"inputs": [image_input(data=data)]})
    np.testing.assert_array_equal(request.feed["images"], PIXELS)
    assert request.batch_size == 2
    assert [(wish.name, wish.is_binary) for wish in request.outputs] == [("logits", False), ("probabilities", False)]


def test_tensors_are_read_from_bytes() -> None:
    entry = image_input(data=None, parameters={"binary_data_size": 8})
    request = parse({"inputs": [entry], "parameters": {"binary_data_output": True}}, tensors=PIXELS.tobytes())
    np.testing.assert_array_equal(request.feed["images"], PIXELS)
    assert all(wish.is_binary for wish in request.outputs)


@pytest.mark.parametrize("padding", range(8))
def test_tensors_of_wide_numbers_are_read_at_any_place(padding: int) -> None:
    tokens, targets = np.array([[1, 2, 3]]), np.array([[2, 3, 4]])
    state = np.array([[0.5, -1, 2]], np.float32)
    document = {
        "id": "x" * (padding + 1),
        "inputs": [
            {"name": n, "datatype": d, "shape": list(a.shape), "parameters": {"binary_data_size": a.nbytes}}
            for n, d, a in (("tokens", "INT64", tokens), ("targets", "INT64", targets), ("state", "FP32", state))
        ],
    }
    request = parse(document, tensors=tokens.tobytes() + targets.tobytes() + state.tobytes(), signature=TEXT)
    np.testing.assert_array_equal(request.feed["targets"], targets)
    np.testing.assert_array_equal(request.feed["state"], state)
    assert all(array.flags.aligned for array in request.feed.values())


def test_a_body_without_json_is_the_only_input() -> None:
    request = InferReader("0").read(bytes(4), IMAGES)
    assert request.feed["images"].shape == (1, 2, 2, 1)
    assert all(wish.is_binary for wish in request.outputs)


def test_outputs_deadline_and_id_are_read() -> None:
    request = parse(
        {
            "id": "seven",
            "inputs": [image_input()],
            "parameters": {"timeout": 2500, "binary_data_output": True, "priority": 1},
            "outputs": [
                {"name": "probabilities", "parameters": {"classification": 2, "binary_data": False}},
                {"name": "logits"},
            ],
        }
    )
    assert (request.id, request.timeout_s) == ("seven", 0.0025)
    assert request.outputs == (OutputWish("probabilities", False, 2), OutputWish("logits", True))


def test_parameters_that_are_null_are_none() -> None:
    request = parse({"inputs": [{**image_input(), "parameters": None}], "parameters": None, "outputs": None})
    assert request.timeout_s is None


def test_json_that_is_that_of_the_request_before_goes_with_tensors_of_its_own() -> None:
    header = json.dumps({"inputs": [image_input(data=None, parameters={"binary_data_size": 8})]}).encode()
    other = header.replace(b"images", b"imagos")
    reader = InferReader(str(len(header)))
    first, second = (reader.read(header + tensors, IMAGES) for tensors in (bytes(8), PIXELS.tobytes()))
    assert first.feed["images"].sum() == 0
    np.testing.assert_array_equal(second.feed["images"], PIXELS)
    with pytest.raises(RequestError, match="expecting 1 additional bytes"):
        reader.read(header + bytes(7), IMAGES)
    with pytest.raises(RequestError, match="unexpected inference input 'imagos'"):
        reader.read(other + bytes(8), IMAGES)
    with pytest.raises(RequestError, match="unexpected inference input 'images' for model 't'"):
        reader.read(header + bytes(8), TEXT)
    np.testing.assert_array_equal(reader.read(header + PIXELS.tobytes(), IMAGES).feed["images"], PIXELS)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the request must be a JSON object"),
        ({}, "inputs must be a list of objects"),
        ({"inputs": []}, "inputs must be a list of objects"),
        ({"inputs": [1]}, "inputs must be a list of objects"),
        ({"inputs": [image_input(name="x")]}, "unexpected inference input 'x' for model 'm'; it takes images"),
        ({"inputs": [image_input(name=None)]}, "an input has no name"),
        ({"inputs": [image_input(), image_input()]}, "input 'images' is given twice"),
        (
            {"inputs": [image_input(datatype="FP32")]},
            "input 'images': datatype is FP32, but the model takes UINT8",
        ),
        (
            {"inputs": [image_input(shape=[2, 4])]},
            "unexpected shape for input 'images'. Expected [-1, 2, 2, 1], got [2,4]",
        ),
        (
            {"inputs": [image_input(shape=[0, 2, 2, 1], data=[])]},
            "unexpected shape for input 'images'. Expected [-1, 2, 2, 1], got [0,2,2,1]",
        ),
        ({"inputs": [image_input(shape=[True, 2, 2, 1])]}, "input 'images': shape must be a list of whole numbers"),
        ({"inputs": [image_input(data=[1])]}, "input 'images': data is not of shape [2, 2, 2, 1]"),
        ({"inputs": [image_input(data=[[1, 2], [3]])]}, "input 'images': data is not of shape [2, 2, 2, 1]"),
        (
            {"inputs": [image_input(data=["a"] * 8)]},
            "input 'images': data holds something else than UINT8 values",
        ),
        ({"inputs": [image_input(data=[0.5] * 8)]}, "input 'images': data holds something else than UINT8 values"),
        ({"inputs": [image_input(data=[None] * 8)]}, "input 'images': data holds something else than UINT8 values"),
        ({"inputs": [image_input(data=[256] * 8)]}, "input 'images': data holds a value that UINT8 cannot"),
        ({"inputs": [image_input(data=[-1] * 8)]}, "input 'images': data holds a value that UINT8 cannot"),
        (
            {"inputs": [image_input(data=None)]},
            "input 'images': data must be a list, or its size told as binary_data_size",
        ),
        (
            {"inputs": [image_input(data=None, parameters={"binary_data_size": 8})]},
            "must specify valid 'Inference-Header-Content-Length' in request header when passing inputs in binary data "
            "format: input 'images'",
        ),
        (
            {"inputs": [image_input(shape=[5, 2, 2, 1], data=[0] * 20)]},
            "inference request batch-size must be <= 4 for 'm', but is 5",
        ),
        ({"inputs": [image_input()], "id": 7}, "id must be a text of at most 1024 characters"),
        ({"inputs": [image_input()], "parameters": []}, "request: parameters must be an object"),
        ({"inputs": [image_input()], "parameters": {"triton_x": 1}}, "request: parameter 'triton_x' is reserved"),
        (
            {"inputs": [image_input()], "parameters": {"timeout": -1}},
            "timeout must be a whole number of microseconds",
        ),
        (
            {"inputs": [image_input()], "outputs": [{"name": "boxes"}]},
            "unexpected inference output 'boxes' for model 'm'; it gives logits, probabilities",
        ),
        (
            {"inputs": [image_input()], "outputs": [{"name": "logits"}, {"name": "logits"}]},
            "output 'logits' is asked for twice",
        ),
        (
            {"inputs": [image_input()], "outputs": [{"name": "logits", "parameters": {"classification": -1}}]},
            "output 'logits': classification must be a whole number above 0",
        ),
    ],
)
def test_a_request_that_is_wrong_is_told_why(document: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(document)
    assert (caught.value.status, str(caught.value)) == (400, message)


@pytest.mark.parametrize(
    ("size", "tensors", "message"),
    [
        (8, bytes(5), "unexpected size for input 'images', expecting 3 additional bytes"),
        (8, bytes(9), "unexpected additional input data for model 'm': 1 bytes"),
        (
            7,
            bytes(7),
            "unexpected total byte size 7 for input 'images', expecting 8: UINT8 of shape [2, 2, 2, 1]",
        ),
        (-1, bytes(8), "input 'images': binary_data_size must be a whole number"),
        (
            2**63,
            bytes(8),
            f"unexpected total byte size {2**63} for input 'images', expecting 8: UINT8 of shape [2, 2, 2, 1]",
        ),
    ],
)
def test_bytes_of_another_size_are_refused(size: int, tensors: bytes, message: str) -> None:
    entry = image_input(data=None, parameters={"binary_data_size": size})
    with pytest.raises(RequestError) as caught:
        parse({"inputs": [entry]}, tensors=tensors)
    assert str(caught.value) == message


@pytest.mark.parametrize("length", ["-1", "1e3", "", "٣", "9" * 30, "10000"])
def test_a_header_length_that_lies_is_refused(length: str) -> None:
    with pytest.raises(RequestError, match=r"^Inference-Header-Content-Length is "):
        InferReader(length).read(b'{"inputs": []}', IMAGES)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": "\xff"}', b"\x00"])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(RequestError, match=r"^failed to parse the request JSON buffer: "):
        InferReader(None).read(text, IMAGES)


def test_numbers_beyond_the_type_are_refused() -> None:
    entry = {"name": "state", "datatype": "FP32", "shape": [1, 3], "data": [1e300, 0, 0]}
    tokens = [{"name": n, "datatype": "INT64", "shape": [1, 1], "data": [1]} for n in ("tokens", "targets")]
    with pytest.raises(RequestError, match=r"^input 'state': data holds a value that FP32 cannot$"):
        parse({"inputs": [*tokens, entry]}, signature=TEXT)


def test_inputs_that_disagree_on_a_dimension_are_refused() -> None:
    tokens = {"name": "tokens", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    targets = {"name": "targets", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}
    with pytest.raises(RequestError, match=r"^input 'targets': time is 3, but 2 in another input$"):
        parse({"inputs": [tokens, targets]}, signature=TEXT)


def test_a_missing_input_is_named() -> None:
    tokens = {"name": "tokens", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    with pytest.raises(RequestError, match=r"^expected 3 inputs but got 1 for model 't': missing targets, state$"):
        parse({"inputs": [tokens]}, signature=TEXT)


@pytest.mark.parametrize(("depth", "is_read"), [(100, True), (101, False), (100_000, False)])
def test_json_may_be_nested_a_hundred_deep(depth: int, is_read: bool) -> None:
    # Brackets within texts do not count.
    text = b'{"inputs": "]' + b"[" * 500 + b'\\"", "x": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    message = "inputs must be a list" if is_read else f"nested {depth} deep, at most 100 is allowed"
    with pytest.raises(RequestError, match=message):
        InferReader(None).read(text, IMAGES)


def test_json_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLargeError, match=r"at most 16,777,216 are allowed; send large tensors as bytes"):
        InferReader(None).read(b"[" * (16 * 2**20 + 1), IMAGES)


def test_shared_memory_is_not_supported() -> None:
    entry = image_input(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8})
    with pytest.raises(UnsupportedError, match="this server has no shared memory"):
        parse({"inputs": [entry]})


# --- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(datatype=st.sampled_from(sorted(DTYPES)), batch=st.integers(1, 4), data=st.data())
def test_what_json_and_bytes_say_is_the_same(datatype: str, batch: int, data: st.DataObject) -> None:
    dtype = DTYPES[datatype]
    signature = Signature("m", (tensor_spec("x", dtype, ["batch", 3]),), IMAGES.outputs, max_batch_size=4)
    bits = data.draw(st.binary(min_size=batch * 3 * dtype.itemsize, max_size=batch * 3 * dtype.itemsize))
    values = np.frombuffer(bits, np.uint8) % 2 == 1 if datatype == "BOOL" else np.frombuffer(bits, dtype)
    values = np.nan_to_num(values, posinf=1, neginf=-1) if dtype.kind == "f" else values
    entry = {"name": "x", "datatype": datatype, "shape": [batch, 3]}
    as_json = parse({"inputs": [{**entry, "data": values.tolist()}]}, signature=signature)
    as_bytes = parse(
        {"inputs": [{**entry, "parameters": {"binary_data_size": values.nbytes}}]},
        tensors=values.tobytes(),
        signature=signature,
    )
    np.testing.assert_array_equal(as_json.feed["x"], as_bytes.feed["x"])
    np.testing.assert_array_equal(as_bytes.feed["x"].ravel(), values)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_WORDS = st.sampled_from(
    ["images", "logits", "UINT8", "FP32", "inputs", "outputs", "parameters", "binary_data_size", "classification", "x"]
)
_NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "id": _JSON,
        "parameters": _JSON | st.dictionaries(_WORDS, _JSON, max_size=3),
        "inputs": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": _WORDS | _JSON,
                    "datatype": _WORDS | _JSON,
                    "shape": st.lists(st.integers(-3, 9) | _JSON, max_size=5) | st.just([1, 2, 2, 1]),
                    "data": st.lists(st.integers(-1, 300) | _JSON, max_size=9) | st.just([1, 2, 3, 4]) | _JSON,
                    "parameters": st.dictionaries(_WORDS, st.integers(-9, 2**70) | _JSON, max_size=3) | _JSON,
                },
            ),
            max_size=2,
        )
        | _JSON,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {}, optional={"name": _WORDS | _JSON, "parameters": st.dictionaries(_WORDS, _JSON, max_size=2)}
            ),
            max_size=3,
        )
        | _JSON,
    },
)
_DOCUMENTS = (_NEARLY | _JSON).map(lambda value: json.dumps(value).encode())


def outcome(reader: InferReader, body: bytes, signature: Signature) -> InferRequest | ServeError:
    try:
        return reader.read(body, signature)
    except ServeError as error:
        return error


def never_fails_otherwise(header: bytes, rest: bytes, length: str | None) -> None:
    """Whatever comes is read, or refused with a client's status and one short line; again in the same way."""
    for signature in (IMAGES, TEXT):
        reader = InferReader(length)
        found, again = (outcome(reader, header + rest, signature) for _ in range(2))
        assert told(found) == told(again)
        if isinstance(found, ServeError):
            assert found.status in (400, 413, 501)
            assert len(str(found)) < 1000
        else:
            assert set(found.feed) == {spec.name for spec in signature.inputs}
            assert 1 <= found.batch_size <= signature.max_batch_size


def told(found: InferRequest | ServeError) -> str:
    if isinstance(found, ServeError):
        return repr(found)
    arrays = {name: (array.dtype, array.tolist()) for name, array in found.feed.items()}
    return repr((found.id, arrays, found.batch_size, found.outputs, found.timeout_s))


def fuzz(max_examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        strategy = given(
            header=_DOCUMENTS | st.binary(max_size=64),
            rest=st.binary(max_size=40),
            length=st.none() | st.just("") | st.integers(-1, 300).map(str) | st.text(max_size=4) | st.just("whole"),
        )
        options = settings(max_examples=max_examples, suppress_health_check=list(HealthCheck))
        return options(strategy(test))

    return decorate


@example(header=b'{"inputs": [{"name": "images", "shape": [1' + b"0" * 4000 + b"]}]}", rest=b"", length=None)
@fuzz(250)
def test_no_request_breaks_the_parser(header: bytes, rest: bytes, length: str | None) -> None:
    never_fails_otherwise(header, rest, str(len(header)) if length == "whole" else length)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@fuzz(100_000)
def test_no_request_out_of_a_hundred_thousand_breaks_the_parser(header: bytes, rest: bytes, length: str | None) -> None:
    never_fails_otherwise(header, rest, str(len(header)) if length == "whole" else length)
