"""The protocol over HTTP, against a real server."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.benchmarking.clients import RemoteTarget
from runtime.benchmarking.clients import outputs_of as outputs_in
from runtime.models.inputs import random_inputs
from tests.foundation import sixteen_bits
from tests.runtime import language_models
from tests.runtime.conftest import CLASSES, SHAPE, expected_logits, metadata, save, tiny_graph
from tests.runtime.serving.conftest import (
    DRAWING,
    HEADER_LENGTH,
    INFER,
    Server,
    ask,
    binary_request,
    infer_document,
    outputs_of,
    pixels,
    serving,
)

IMAGES = pixels(0, 128, 255)


def picture(value: int, kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(stream, kind)
    return stream.getvalue()


# --- what is there ----------------------------------------------------------------------------------------------------


def test_the_server_tells_what_it_understands(server: Server) -> None:
    document = server.get("/v2").json()
    assert document["name"] == "enas"
    assert "binary_tensor_data" in document["extensions"]
    assert server.get("/v2/health/live").status == 200
    assert server.get("/v2/health/ready").status == 200


def test_a_model_tells_what_it_takes_and_gives(server: Server) -> None:
    document = server.get("/v2/models/tiny").json()
    assert (document["name"], document["versions"], document["platform"]) == ("tiny", ["1", "3"], "onnxruntime_onnx")
    assert document["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, *SHAPE]}]
    assert document["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 3]}
    assert document["properties"]["device"] == "CPU"
    assert server.get("/v2/models/tiny/versions/1").json()["versions"] == ["1"]


def test_a_models_configuration_is_tritons(server: Server) -> None:
    config = server.get("/v2/models/tiny/config").json()
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": list(SHAPE)}]
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert config["dynamic_batching"]["preferred_batch_size"] == [1, 2, 3, 4, 6, 8]
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]


@pytest.mark.parametrize("path", ["/v2/models/tiny/ready", "/v2/models/tiny/versions/3/ready", "/v2/models/cats/ready"])
def test_models_are_ready(server: Server, path: str) -> None:
    assert server.get(path).status == 200


def test_the_index_lists_every_model_and_version(server: Server) -> None:
    for body in (None, {}, {"ready": True}):
        rows = server.post("/v2/repository/index", body).json()
        assert {(row["name"], row["version"], row["state"]) for row in rows} == {
            ("cats", "1", "READY"),
            ("cats-sequence", "1", "READY"),
            ("tiny", "1", "READY"),
            ("tiny", "3", "READY"),
        }


# --- inference --------------------------------------------------------------------------------------------------------


def test_json_in_json_out(server: Server) -> None:
    reply = server.post(INFER, infer_document(IMAGES, id="seven"))
    document = reply.json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("tiny", "3", "seven")
    np.testing.assert_allclose(outputs_of(reply)["logits"], expected_logits(IMAGES), atol=1e-4)
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_bytes_in_bytes_out(server: Server, batch: int) -> None:
    images = np.random.default_rng(batch).integers(0, 256, (batch, *SHAPE), dtype=np.uint8)
    body, headers = binary_request(images)
    reply = server.ask("POST", "/v2/models/tiny/versions/1/infer", body, headers)
    outputs = outputs_of(reply)
    np.testing.assert_allclose(outputs["logits"], expected_logits(images), atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert reply.headers["content-type"] == "application/octet-stream"


def test_a_raw_body_is_one_image(server: Server) -> None:
    reply = server.ask("POST", INFER, IMAGES[2].tobytes(), {HEADER_LENGTH: "0"})
    np.testing.assert_allclose(outputs_of(reply)["logits"], expected_logits(IMAGES[2:]), atol=1e-4)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_works_both_ways(server: Server, encoding: str) -> None:
    images = pixels(*range(8))
    body, headers = binary_request(images)
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    headers |= {"Content-Encoding": encoding, "Accept-Encoding": f"br;q=1, {encoding};q=0.5"}
    np.testing.assert_allclose(
        outputs_of(server.ask("POST", INFER, compress(body), headers))["logits"], expected_logits(images), atol=1e-4
    )
    wishes = {"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]}
    document = infer_document(images, **wishes, id="x" * 1000)
    reply = server.post(INFER, document, {"Accept-Encoding": encoding})
    assert reply.headers["content-encoding"] == encoding
    plain = gzip.decompress(reply.body) if encoding == "gzip" else zlib.decompress(reply.body)
    assert json.loads(plain)["id"] == "x" * 1000


def test_classes_come_with_their_labels(server: Server) -> None:
    wish = {"name": "probabilities", "parameters": {"classification": 2}}
    (output,) = server.post(INFER, infer_document(IMAGES, outputs=[wish])).json()["outputs"]
    assert output["shape"] == [3, 2]
    assert [text.split(":")[2] for text in output["data"][::2]] == list(CLASSES)


def test_a_language_model_is_served_as_tensors(server: Server) -> None:
    state = np.zeros((1, language_models.HIDDEN), np.float32)
    for token, expected in zip([0, 1, 2], language_models.expected_logits([0, 1, 2]), strict=True):
        inputs = [
            {"name": "tokens", "datatype": "INT64", "shape": [1], "data": [token]},
            {"name": "state", "datatype": "FP32", "shape": list(state.shape), "data": state.ravel().tolist()},
        ]
        outputs = outputs_of(server.post("/v2/models/cats/infer", {"inputs": inputs}))
        np.testing.assert_allclose(outputs["logits"][0], expected, atol=1e-4)
        state = outputs["next_state"]


@pytest.mark.parametrize("data", [[0, 1, 2], [[0], [1], [2]]])
def test_a_batch_of_tokens_may_have_the_dimension_that_triton_adds(server: Server, data: object) -> None:
    config = server.get("/v2/models/cats/config").json()
    assert config["input"][0] == {"name": "tokens", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}
    zeros = np.zeros((3, language_models.HIDDEN)).ravel().tolist()
    inputs = [
        {"name": "tokens", "datatype": "INT64", "shape": [3, 1], "data": data},
        {"name": "state", "datatype": "FP32", "shape": [3, language_models.HIDDEN], "data": zeros},
    ]
    outputs = outputs_of(server.post("/v2/models/cats/infer", {"inputs": inputs}))
    for token, found in enumerate(outputs["logits"]):
        np.testing.assert_allclose(found, language_models.expected_logits([token])[0], atol=1e-4)


def test_texts_of_different_lengths_are_scored_each_as_if_alone(server: Server) -> None:
    def score(tokens: list[int]) -> np.ndarray:
        inputs = [
            {"name": name, "datatype": "INT64", "shape": [1, len(data)], "data": data}
            for name, data in (("tokens", tokens[:-1]), ("targets", tokens[1:]))
        ]
        state = {"name": "state", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]}
        reply = server.post("/v2/models/cats-sequence/infer", {"inputs": [*inputs, state]})
        return outputs_of(reply)["log_probs"][0]

    texts = [list(language_models.GOLDEN_TOKENS[0]), [2, 2, 3], [1, 0]] * 5
    with ThreadPoolExecutor(8) as pool:
        for tokens, found in zip(texts, pool.map(score, texts), strict=True):
            np.testing.assert_allclose(found, language_models.expected_log_probs(tokens), atol=1e-4)


def test_a_token_outside_the_vocabulary_is_refused(server: Server) -> None:
    inputs = [
        {"name": "tokens", "datatype": "INT64", "shape": [1], "data": [5]},
        {"name": "state", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]},
    ]
    reply = server.post("/v2/models/cats/infer", {"inputs": inputs})
    assert (reply.status, reply.error) == (400, "input 'tokens': the vocabulary's tokens are 0 to 4")


def test_our_own_client_benchmarks_it(server: Server) -> None:
    target = RemoteTarget.find("tiny", url=f"http://127.0.0.1:{server.port}")
    assert target.is_binary
    feed = random_inputs(target.inputs, batch_size=2, sizes={}, seed=0)
    with target.open(feed, None) as opened:
        result = opened.connect()()
    assert target.examine(result) is None
    logits, _ = outputs_in(*result)
    np.testing.assert_allclose(logits, expected_logits(feed["images"]), atol=1e-4)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_statistics_count_requests_rows_and_batches(server: Server) -> None:
    def stats() -> dict[str, Any]:
        (entry,) = server.get("/v2/models/tiny/versions/1/stats").json()["model_stats"]
        return entry

    before = stats()
    for _ in range(3):
        server.post("/v2/models/tiny/versions/1/infer", infer_document(IMAGES[:2]))
    server.post("/v2/models/tiny/versions/1/infer", {"inputs": []})
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    of = after["inference_stats"]
    assert of["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert of["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert of["compute_input"]["count"] == of["compute_infer"]["count"] == of["compute_output"]["count"]
    assert of["cache_hit"] == of["cache_miss"] == {"count": 0, "ns": 0}
    assert 2 in [batch["batch_size"] for batch in after["batch_stats"]]
    assert after["last_inference"] > 1.7e12
    assert len(server.get("/v2/models/stats").json()["model_stats"]) == 4


def test_metrics_have_tritons_names(server: Server) -> None:
    server.post("/v2/models/tiny/versions/1/infer", infer_document(IMAGES))
    text = server.get("/metrics").body.decode()
    for name in (
        "nv_inference_request_success",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_pending_request_count",
        "nv_model_load_duration_secs",
    ):
        assert f'\n{name}{{model="tiny",version="1"}} ' in text
    assert 'enas_request_duration_seconds_bucket{model="tiny",version="1",le="0.0005"}' in text


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "name"), [(0, "dark"), (128, "grey"), (255, "bright")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_picture_is_classified_as_it_is(server: Server, value: int, name: str, kind: str, method: str) -> None:
    document = server.ask(method, "/v1/classify?top=2", picture(value, kind, mode="RGB")).json()
    assert document["classes"][0]["class"] == name
    assert len(document["classes"]) == 2
    assert (document["model"], document["version"]) == ("tiny", "3")
    assert set(document["ms"]) == {"decode", "queue", "infer", "total"}


def test_an_answer_says_how_deep_pixels_were_scaled(server: Server) -> None:
    data = sixteen_bits.png(np.full((30, 40, 3), 4095, np.uint16))
    document = server.ask("POST", "/v1/classify", data).json()
    assert document["classes"][0]["class"] == "bright"
    assert document["remark"] == "no value above 4095: read as 12 bits a pixel"
    assert "remark" not in server.ask("POST", "/v1/classify", picture(255)).json()


def test_an_answer_that_is_not_finite_is_the_models_failure(tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.initializer[0].raw_data = np.float32(1e-38).tobytes()  # by which pixels are divided
    golden = metadata()["golden"] | {"images": base64.b64encode(bytes(math.prod(SHAPE))).decode(), "shape": [1, *SHAPE]}
    golden["logits"] = expected_logits(np.zeros((1, *SHAPE), np.uint8)).tolist()
    with serving(save(tmp_path / "nan.onnx", graph, metadata(golden=golden))) as running:
        reply = running.ask("POST", "/v1/classify", picture(255))
    assert (reply.status, reply.error) == (500, "the model's answer contains numbers that are not finite")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/classify", b"", 400, "the picture: an empty file"),
        ("/v1/classify", b"GIF89a", 400, "the picture: not a picture"),
        ("/v1/classify", picture(1)[:60], 400, "the picture: damaged: "),
        ("/v1/classify?model=nix", picture(1), 404, "Request for unknown model: 'nix' is not found"),
        ("/v1/classify?model=cats", picture(1), 400, "model 'cats' is a language model of single steps, not an image"),
        ("/v1/classify?top=0", picture(1), 400, "top must be a whole number above 0"),
        ("/v1/classify?version=2", picture(1), 404, "Request for unknown model: 'tiny' version 2 is not found"),
    ],
)
def test_what_cannot_be_classified_is_told_why(
    server: Server, path: str, body: bytes, status: int, message: str
) -> None:
    reply = server.ask("POST", path, body)
    assert reply.status == status
    assert reply.error.startswith(message)


def test_a_picture_of_too_many_pixels_is_refused_unread(server: Server) -> None:
    bomb = bytearray(picture(1))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    reply = server.ask("POST", "/v1/classify", bytes(bomb))
    assert (reply.status, "at most 80 million pixels" in reply.error) == (400, True)


def test_a_form_is_told_to_send_the_picture_itself(server: Server) -> None:
    reply = server.ask("POST", "/v1/classify", b"--x", {"Content-Type": "multipart/form-data; boundary=x"})
    assert (reply.status, "curl -T" in reply.error) == (400, True)


def test_the_page_and_what_it_needs_come_from_here(server: Server) -> None:
    for path in ("/", "/docs", "/web/page.css", "/web/page.js", "/web/pictures.js", "/web/docs.js"):
        reply = server.get(path)
        assert reply.status == 200
        assert b"//" not in reply.body.replace(b"http://www.w3.org", b"").replace(b"// ", b"")
        assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert server.get("/v1/models/tiny/drawing.svg").body.decode() == DRAWING
    assert server.get("/v1/models/cats/drawing.svg").status == 404
    assert {model["name"] for model in server.get("/v1/models").json()["models"]} == {"cats", "cats-sequence", "tiny"}


def test_the_openapi_document_names_every_path(server: Server) -> None:
    document = server.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path in ("/v2/models/{model}/infer", "/v1/classify", "/v2/repository/models/{model}/load", "/metrics"):
        assert path in document["paths"]


# --- many clients -----------------------------------------------------------------------------------------------------


def test_many_clients_get_their_own_answers(server: Server) -> None:
    def client(number: int) -> bool:
        connection: http.client.HTTPConnection = server.connect()
        generator = np.random.default_rng(number)
        try:
            for _ in range(20):
                images = generator.integers(0, 256, (generator.integers(1, 5), *SHAPE), dtype=np.uint8)
                body, headers = binary_request(images)
                outputs = outputs_of(ask(connection, "POST", INFER, body, headers))
                np.testing.assert_allclose(outputs["logits"], expected_logits(images), atol=1e-4)
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(client, range(16)))
