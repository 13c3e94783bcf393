"""Networks that the runtime's benchmark compares an exported model with; they are made here, with torch, so that the
runtime needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from exporter.conversion.convert import DeployedNetwork, check, convert
from exporter.delivery.export import load_deployed
from exporter.judging.references import references as known_networks
from searcher.arch.tasks import ImageClassification

# B batch, H height, W width, C channels


def torch_network(run: Path, *, threads: int, device: str, compiled: bool) -> Callable[..., np.ndarray]:
    """The run's retrained network in torch: the inputs of its model.onnx, in order -> logits [B, classes].

    A call copies the inputs to the device and the logits back. Args: compiled: with torch.compile, for each shape,
    instead of eager.
    Raises: RunError: the run has no retrained network.
    """
    network = load_deployed(run).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.set_num_threads(threads)
    forward = torch.compile(network, dynamic=False) if compiled else network

    def predict(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = forward(*(torch.from_numpy(array).to(device) for array in inputs))[0].cpu().numpy()
            return logits

    return predict


def references(*, image_shape: tuple[int, int, int], num_classes: int) -> Mapping[str, bytes]:
    """Known networks for the same images, untrained and exported as ours are: name -> ONNX file.

    Args: image_shape: H, W, C.
    """
    channels = image_shape[-1]
    classes = tuple(f"class {number}" for number in range(num_classes))
    models = {}
    for name, network in known_networks(ImageClassification(dataset="any", input_shape=image_shape, classes=classes)):
        deployed = DeployedNetwork(network, mean=[0.5] * channels, std=[0.25] * channels)
        models[name] = check(convert(deployed, input_shape=image_shape))
    return models
