from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from exporter.conversion.convert import DeployedNetwork
from exporter.judging import peers
from exporter.judging.references import REFERENCE_SPECS, references
from searcher.arch.tasks import ImageClassification

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)


NAMES = (*REFERENCE_SPECS, "shufflenet-v2")


def reference(name: str, input_shape: tuple[int, int, int], num_classes: int) -> torch.nn.Module:
    classes = tuple(map(str, range(num_classes)))
    task = ImageClassification(dataset="any", input_shape=input_shape, classes=classes)
    return dict(references(task))[name]


def deployed(name: str) -> DeployedNetwork:
    network = reference(name, (28, 28, 1), 10)
    return DeployedNetwork(network, mean=[0.5], std=[0.25]).eval()


def test_a_reference_has_about_as_many_parameters_as_its_cifar_variant() -> None:
    sizes = {name: sum(p.numel() for p in reference(name, (32, 32, 3), 10).parameters()) for name in NAMES}
    # ResNet-20 with the bias of its classifier has 272,474; the cut of MobileNetV2 is our own.
    assert sizes == {"resnet-20": 272_464, "mobilenet-v2-small": 247_264, "shufflenet-v2": 352_042}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 28, 32, 97, 224])
def test_a_reference_takes_images_of_any_size(name: str, size: int) -> None:
    network = reference(name, (size, size, 3), 7).eval()
    logits, auxiliary = network(torch.zeros(2, 3, size, size))
    assert (logits.shape, auxiliary) == ((2, 7), None)


@pytest.mark.parametrize(
    "name",
    [name if name == "shufflenet-v2" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_references_are_exported_as_ours_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(peers, "known_networks", lambda task: [(name, dict(references(task))[name])])
    ((found, data),) = peers.references(image_shape=(28, 28, 1), num_classes=10).items()
    assert found == name
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": IMAGES})
    assert np.allclose(logits, deployed(name)(torch.from_numpy(IMAGES))[0].detach(), atol=1e-4)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_network_in_torch_gives_its_logits(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    network = deployed("shufflenet-v2")
    monkeypatch.setattr(peers, "load_deployed", lambda run: network)
    threads = torch.get_num_threads()
    predict = peers.torch_network(Path("run"), threads=1, device="cpu", compiled=compiled)
    try:
        assert torch.get_num_threads() == 1
        assert np.allclose(predict(IMAGES), network(torch.from_numpy(IMAGES))[0].detach(), atol=1e-4)
    finally:
        torch.set_num_threads(threads)
