"""The manifest has the fields of KServe's API, and none that it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from exporter.delivery.kserve import STORAGE_URI, inference_service

# Of `serving.kserve.io/v1beta1`: the fields that a manifest may have, or the values of one. Those with a star must be.
SCHEMA: dict[str, Any] = {
    "apiVersion*": {"serving.kserve.io/v1beta1"},
    "kind*": {"InferenceService"},
    "metadata*": {"name*": str, "namespace": str, "labels": dict, "annotations": dict},
    "spec*": {
        "predictor*": {
            "minReplicas": int,
            "maxReplicas": int,
            "model": {
                "modelFormat*": {"name*": {"triton", "onnx"}, "version": str},
                "protocolVersion": {"v1", "v2", "grpc-v1", "grpc-v2"},
                "runtime": str,
                "runtimeVersion": str,
                "storageUri": str,
                "storage": dict,
                "args": list,
                "env": list,
                "resources": dict,
            },
        },
        "transformer": dict,
        "explainer": dict,
    },
}


def problems(document: Any, schema: Any, *, at: str = "") -> list[str]:
    if isinstance(schema, type):
        return [] if isinstance(document, schema) else [f"{at} is {document!r}"]
    if isinstance(schema, set):
        return [] if document in schema else [f"{at} is {document!r}"]
    if not isinstance(document, Mapping):
        return [f"{at} is {document!r}"]
    known = {key.rstrip("*"): value for key, value in schema.items()}
    found = [f"{at}.{key} is unknown" for key in document if key not in known]
    found += [f"{at}.{key[:-1]} is missing" for key in schema if key.endswith("*") and key[:-1] not in document]
    for key in document.keys() & known.keys():
        found += problems(document[key], known[key], at=f"{at}.{key}")
    return found


@pytest.mark.parametrize(("gpu", "resources"), [(False, None), (True, {"limits": {"nvidia.com/gpu": "1"}})])
def test_the_manifest_is_as_kserve_describes_it(gpu: bool, resources: object) -> None:
    document = yaml.safe_load(inference_service("flowers", gpu=gpu))
    assert problems(document, SCHEMA) == []
    assert document["spec"]["predictor"]["model"].get("resources") == resources
    model = document["spec"]["predictor"]["model"]
    assert (model["modelFormat"]["name"], model["protocolVersion"]) == ("triton", "v2")


def test_what_has_to_be_replaced_is_told_and_is_no_address() -> None:
    text = inference_service("flowers")
    assert yaml.safe_load(text)["spec"]["predictor"]["model"]["storageUri"] == STORAGE_URI
    assert text.startswith("# First put this folder where the cluster finds it, and its address into storageUri")
    assert not re.match(r"(s3|gs|pvc|https?|hdfs|webhdfs|hf|oci|file)://", STORAGE_URI)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flowers", "flowers"),
        ("true", "true"),
        ("a" * 40, "a" * 40),
        ("stages-fashion_mnist.v2", "stages-fashion-mnist-v2-......"),
        ("10", "model-10-......"),
        ("___", "model-......"),
        ("A" * 60, "a" * 33 + "-......"),
        ("a" * 32 + "-b" * 5, "a" * 32 + "-......"),
    ],
)
def test_the_service_has_a_name_that_kubernetes_allows(name: str, expected: str) -> None:
    found = yaml.safe_load(inference_service(name))["metadata"]["name"]
    assert re.fullmatch(expected, found)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)


@pytest.mark.parametrize("names", [("A_b", "a-b", "a.b"), ("a" * 41 + "1", "a" * 41 + "2"), ("10", "model-10")])
def test_models_of_two_names_have_two_services(names: tuple[str, ...]) -> None:
    services = {yaml.safe_load(inference_service(name))["metadata"]["name"] for name in names}
    assert len(services) == len(names)
