"""Answers as bytes, without a server or a model."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from runtime.serving.answers import encode_infer
from runtime.serving.protocol import InferRequest, OutputWish

OUTPUTS = {
    "logits": np.array([[1, 3, 2], [9, 8, 7]], np.float32),
    "probabilities": np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0]], np.float32),
}


def encode(*wishes: OutputWish, identity: str | None = None) -> tuple[dict[str, Any], bytes]:
    request = InferRequest(identity, {}, 2, wishes, None)
    answer = encode_infer(request, OUTPUTS, model="m", version="3", labels=("ant", "bee", "cat"))
    return json.loads(answer.body[: answer.num_json_bytes]), answer.body[answer.num_json_bytes or len(answer.body) :]


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
