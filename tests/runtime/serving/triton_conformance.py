"""Every call of the real tritonclient that our `extensions` promise; for `make test-clients`, which installs it.

    python triton_conformance.py HOST:PORT

expects the models of `repository_path`: `tiny`, images of 6 × 8 × 1 in versions 1 and 3. Exits 1 at the first failure.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

IMAGES = np.stack([np.full((6, 8, 1), value, np.uint8) for value in (0, 128, 255)])
LABELS = [b"dark", b"grey", b"bright"]


def inputs(images: np.ndarray = IMAGES, *, is_binary: bool = True, datatype: str = "UINT8") -> list[triton.InferInput]:
    tensor = triton.InferInput("images", list(images.shape), datatype)
    tensor.set_data_from_numpy(images, binary_data=is_binary)
    return [tensor]


def check(result: triton.InferResult) -> None:
    assert result.as_numpy("logits").shape == (3, 3)
    np.testing.assert_array_equal(result.as_numpy("probabilities").argmax(axis=1), [0, 1, 2])


def refusal(call: Callable[[], object]) -> InferenceServerException:
    try:
        call()
    except InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


def health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("nix")
    assert "statistics" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("tiny")["versions"] == ["1", "3"]
    assert client.get_model_metadata("tiny", "1")["inputs"][0]["datatype"] == "UINT8"
    assert client.get_model_config("tiny")["max_batch_size"] == 8
    assert client.get_model_config("tiny", "3")["input"][0]["dims"] == [6, 8, 1]


def inference(client: triton.InferenceServerClient) -> None:
    for is_binary in (True, False):
        check(client.infer("tiny", inputs(is_binary=is_binary)))
        check(client.infer("tiny", inputs(is_binary=is_binary), model_version="1"))
    for binary_output in (True, False):
        outputs = [triton.InferRequestedOutput(n, binary_data=binary_output) for n in ("probabilities", "logits")]
        result = client.infer("tiny", inputs(), outputs=outputs, request_id="seven", timeout=10_000_000, priority=1)
        check(result)
        assert result.get_response()["id"] == "seven"
    for request in ("gzip", "deflate", None):
        for response in ("gzip", "deflate", None):
            check(
                client.infer(
                    "tiny",
                    inputs(),
                    request_compression_algorithm=request,
                    response_compression_algorithm=response,
                    parameters={"note": "x" * 2000},
                )
            )
    handles = [client.async_infer("tiny", inputs()) for _ in range(20)]
    for handle in handles:
        check(handle.get_result())


def classification(client: triton.InferenceServerClient) -> None:
    for is_binary in (True, False):
        outputs = [triton.InferRequestedOutput("probabilities", binary_data=is_binary, class_count=2)]
        classes = client.infer("tiny", inputs(), outputs=outputs).as_numpy("probabilities")
        assert classes.shape == (3, 2)
        texts = [text if isinstance(text, bytes) else text.encode() for text in classes[:, 0]]
        assert [text.split(b":")[2] for text in texts] == LABELS


def statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("tiny", "3")["model_stats"][0]["inference_count"]
    client.infer("tiny", inputs())
    (entry,) = client.get_inference_statistics("tiny", "3")["model_stats"]
    assert entry["inference_count"] == before + 3
    assert len(client.get_inference_statistics()["model_stats"]) == 4


def repository(client: triton.InferenceServerClient) -> None:
    assert {"name": "tiny", "version": "3", "state": "READY", "reason": ""} in client.get_model_repository_index()
    client.unload_model("tiny")
    assert not client.is_model_ready("tiny")
    client.load_model("tiny")
    assert client.is_model_ready("tiny")
    assert refusal(lambda: client.load_model("nix")).status() == "404"
    assert refusal(lambda: client.load_model("tiny", config="{}")).status() == "501"
    assert refusal(lambda: client.load_model("tiny", config="{}", files={"file:1/model.onnx": b"x"})).status() == "501"


def refusals(client: triton.InferenceServerClient) -> None:
    wrong_type = refusal(lambda: client.infer("tiny", inputs(IMAGES.astype(np.float32), datatype="FP32")))
    assert (wrong_type.status(), "datatype is FP32" in wrong_type.message()) == ("400", True)
    wrong_shape = refusal(lambda: client.infer("tiny", inputs(IMAGES[:, :5])))
    assert (wrong_shape.status(), "unexpected shape" in wrong_shape.message()) == ("400", True)
    unknown = refusal(lambda: client.infer("nix", inputs()))
    assert unknown.message() == "Request for unknown model: 'nix' is not found"
    for call in (
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
        lambda: client.get_trace_settings("tiny"),
        lambda: client.register_system_shared_memory("r", "/r", 8),
    ):
        assert refusal(call).status() == "501"


async def aio(address: str) -> None:
    client = triton_aio.InferenceServerClient(address)
    try:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("tiny"))["name"] == "tiny"
        for result in await asyncio.gather(*(client.infer("tiny", inputs()) for _ in range(20))):
            check(result)
        check(await client.infer("tiny", inputs(), request_compression_algorithm="gzip"))
    finally:
        await client.close()


def main(address: str) -> None:
    client = triton.InferenceServerClient(address, concurrency=8)
    for part in (health_and_metadata, inference, classification, statistics, repository, refusals):
        part(client)
        print(f"{part.__name__}: as promised")
    asyncio.run(aio(address))
    print("aio: as promised")


if __name__ == "__main__":
    main(sys.argv[1])
