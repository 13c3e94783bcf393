from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from exporter import peers
from exporter.convert import DeployedNetwork
from exporter.references import REFERENCES

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)


def deployed(name: str) -> DeployedNetwork:
    torch.manual_seed(0)
    network = REFERENCES[name](1, 10, image_size=28)
    return DeployedNetwork(network, mean=[0.5], std=[0.25]).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "millions"), [("MobileNetV2-like", 2.24), ("ResNet-20-like", 0.27), ("ShuffleNetV2-like", 0.35)]
)
def test_a_reference_has_about_as_many_parameters_as_its_cifar_variant(name: str, millions: float) -> None:
    network = REFERENCES[name](3, 10, image_size=32)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("size", [16, 28, 32, 97, 224])
def test_a_reference_takes_images_of_any_size(name: str, size: int) -> None:
    network = REFERENCES[name](3, 7, image_size=size).eval()
    logits, auxiliary = network(torch.zeros(2, 3, size, size))
    assert (logits.shape, auxiliary) == ((2, 7), None)


@pytest.mark.parametrize(
    "name",
    [name if name == "ShuffleNetV2-like" else pytest.param(name, marks=pytest.mark.slow) for name in REFERENCES],
)
def test_references_are_exported_as_ours_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(peers, "REFERENCES", {name: REFERENCES[name]})
    ((found, data),) = peers.references(image_shape=(28, 28, 1), num_classes=10).items()
    assert found == name
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": IMAGES})
    assert np.allclose(logits, deployed(name)(torch.from_numpy(IMAGES))[0].detach(), atol=1e-4)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_network_in_torch_gives_its_logits(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    network = deployed("ShuffleNetV2-like")
    monkeypatch.setattr(peers, "load_deployed", lambda run: network)
    threads = torch.get_num_threads()
    predict = peers.torch_network(Path("run"), threads=1, device="cpu", compiled=compiled)
    try:
        assert torch.get_num_threads() == 1
        assert np.allclose(predict(IMAGES), network(torch.from_numpy(IMAGES))[0].detach(), atol=1e-4)
    finally:
        torch.set_num_threads(threads)
