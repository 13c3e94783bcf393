"""The `InferenceService` with which a cluster that has KServe serves a Triton repository.

Source: KServe's `serving.kserve.io/v1beta1` API; its runtime for models of the format `triton`.
"""

from __future__ import annotations

import hashlib
import re

STORAGE_URI = "replace-me://where-the-cluster-finds-this-folder"
"""A placeholder for the user to replace. No storage has this scheme, so KServe refuses a manifest that still has it."""
# The name of the service's host, which includes the namespace, has at most 63 characters.
_MOST_CHARACTERS = 40

_MANIFEST = """\
# First put this folder where the cluster finds it, and its address into storageUri: s3://BUCKET/PATH, gs://BUCKET/PATH,
# pvc://CLAIM/PATH, ... Every model in the folder is served. Then: kubectl apply -f this-file
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: "{name}"
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      storageUri: "{storage_uri}"
"""


_ONE_GPU = """\
      resources:
        limits:
          nvidia.com/gpu: "1"
"""


def inference_service(name: str, *, gpu: bool = False) -> str:
    """The YAML manifest of a service whose name is as near to the model's as Kubernetes allows.

    gpu: whether the service requests a GPU.
    """
    manifest = _MANIFEST.format(name=_service_name(name), storage_uri=STORAGE_URI)
    return manifest + _ONE_GPU if gpu else manifest


def _service_name(name: str) -> str:
    """A name that KServe allows: a lower-case letter, then letters, digits and hyphens, and no hyphen at the end.

    A changed name ends with a part of the original's hash, so that models of different names have different services.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"model-{plain}".strip("-")
    if plain == name and len(name) <= _MOST_CHARACTERS:
        return name
    end = f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return plain[: _MOST_CHARACTERS - len(end)].rstrip("-") + end
