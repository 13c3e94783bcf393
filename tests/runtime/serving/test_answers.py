"""Answers as bytes, without a server or a model."""

from __future__ import annotations

import json
import struct
from functools import partial
from typing import Any

import numpy as np

from runtime.models.protocol_names import HEADER_LENGTH
from runtime.serving.protocol.answers import InferWriter
from runtime.serving.protocol.requests import InferRequest, OutputWish

OUTPUTS = {
    "logits": np.array([[1, 3, 2], [9, 8, 7]], np.float32),
    "probabilities": np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0]], np.float32),
}


def encode(*wishes: OutputWish, identity: str | None = None) -> tuple[dict[str, Any], bytes]:
    request = InferRequest(identity, {}, 2, wishes, None)
    _, headers, body = InferWriter(None).write(request, OUTPUTS, model="m", version="3", labels=("ant", "bee", "cat"))
    num_json_bytes = int(dict(headers).get(HEADER_LENGTH.lower().encode(), len(body)))
    return json.loads(body[:num_json_bytes]), body[num_json_bytes:]


def test_an_answer_as_json_tells_flat_values_and_no_other_parameters() -> None:
    document, rest = encode(OutputWish("logits", False), identity="seven")
    assert document == {
        "model_name": "m",
        "model_version": "3",
        "id": "seven",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [2, 3], "data": [1, 3, 2, 9, 8, 7]}],
    }
    assert rest == b""


def test_an_id_that_was_not_given_is_not_told() -> None:
    document, _ = encode(OutputWish("logits", False))
    assert "id" not in document


def test_binary_outputs_follow_in_their_order() -> None:
    document, rest = encode(OutputWish("probabilities", True), OutputWish("logits", True))
    assert [output["parameters"] for output in document["outputs"]] == [{"binary_data_size": 24}] * 2
    assert rest == OUTPUTS["probabilities"].tobytes() + OUTPUTS["logits"].tobytes()


def test_classes_are_told_likeliest_first_with_their_labels() -> None:
    document, _ = encode(OutputWish("probabilities", False, top=2))
    (output,) = document["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.700000:1:bee", "0.200000:2:cat", "0.500000:0:ant", "0.500000:1:bee"]


def test_more_classes_than_there_are_give_all_of_them_as_bytes() -> None:
    document, rest = encode(OutputWish("logits", True, top=9))
    assert document["outputs"][0]["shape"] == [2, 3]
    (length,) = struct.unpack_from("<I", rest)
    assert rest[4 : 4 + length] == b"3.000000:1:bee"
    assert document["outputs"][0]["parameters"]["binary_data_size"] == len(rest)


def test_an_answer_is_the_same_whether_its_json_is_known_or_not() -> None:
    writer = InferWriter(None)
    told = partial(writer.write, model="m", version="3", labels=())
    wishes = (OutputWish("probabilities", True), OutputWish("logits", True))
    request = InferRequest(None, {}, 2, wishes, None)
    for outputs in (
        OUTPUTS,
        {name: array + 1 for name, array in OUTPUTS.items()},
        {n: a[:1] for n, a in OUTPUTS.items()},
    ):
        expected = InferWriter(None).write(request, outputs, model="m", version="3", labels=())
        assert told(request, outputs) == expected
        assert told(request, outputs) == expected
    other = InferRequest("seven", {}, 2, (*wishes,)[::-1], None)
    assert told(other, OUTPUTS) == InferWriter(None).write(other, OUTPUTS, model="m", version="3", labels=())
